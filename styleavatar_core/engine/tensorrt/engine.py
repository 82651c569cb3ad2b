# SPDX-License-Identifier: Apache-2.0
"""The exported generator in TensorRT: persistent bindings, the network as one CUDA graph.

Has not run on a GPU yet; every name that it uses is compared with the published bindings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorrt
import torch

from styleavatar_core.engine.base import (
    EngineInfo,
    RenderEngine,
    RenderInput,
    RenderOutput,
    blank_input,
    feed_of,
)
from styleavatar_core.engine.cuda.stream import CudaStream, DeviceFrame, gpu_name
from styleavatar_core.engine.cuda.transfers import Transfers
from styleavatar_core.errors import AssetError

_INPUTS = {
    "texture_rendering": torch.uint8,
    "uv_rendering": torch.float32,
    "face_mask": torch.uint8,
}
_OUTPUTS = {"image": torch.uint8, "mask": torch.uint8}


class TensorRtEngine(RenderEngine):
    """Runs a loaded engine on the current CUDA device, one sample after the other.

    Args:
        engine: What ``load_plan`` gave, refitted if need be.
        precision: What the network computes in.

    Raises:
        AssetError: The engine is not one of a generator.
        MemoryError: There is not enough memory for what it computes.
    """

    runtime = "TensorRT"

    def __init__(self, engine: tensorrt.ICudaEngine, precision: str) -> None:
        names = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        if names != {*_INPUTS, *_OUTPUTS}:
            raise AssetError(f"the engine has other inputs and outputs: {', '.join(sorted(names))}")
        shapes = {name: tuple(engine.get_tensor_shape(name)) for name in names}
        sizes = (shapes["image"][1], shapes["texture_rendering"][1], shapes["uv_rendering"][1])
        version = f"{tensorrt.__version__} on {gpu_name()}"
        super().__init__(EngineInfo("tensorrt", precision, *sizes, version))
        context = engine.create_execution_context()
        if context is None:
            # Not the plan's fault: no other one is to be built for it.
            raise MemoryError(
                "TensorRT failed to allocate memory for the engine; its log says more"
            )
        self._engine, self._context = engine, context
        self.stream = self._stream = CudaStream()
        places = {
            name: torch.zeros(shapes[name], dtype=kind, device=self._stream.device)
            for name, kind in (_INPUTS | _OUTPUTS).items()
        }
        for name, tensor in places.items():
            if not self._context.set_tensor_address(name, tensor.data_ptr()):
                raise AssetError(f"the engine refuses the place of its '{name}'")
        self._stream.follow()
        inputs, outputs = (tuple(places[name] for name in kinds) for kinds in (_INPUTS, _OUTPUTS))
        self._frame = DeviceFrame(self._stream, inputs, outputs, self._enqueue)
        self._transfers = Transfers(lambda *given: self.launch(given), self._stream)
        self._is_captured = False

    def _render(self, inputs: RenderInput) -> RenderOutput:
        """Renders all samples: one comes back while the next is computed."""
        parts = map(inputs.part, range(len(inputs.face_mask)))
        feeds = [list(feed_of(part, None).values()) for part in parts]
        pictures = list(map(self._transfers.take, list(map(self._transfers.give, feeds))))
        if len(pictures) == 1:  # the caller's own already
            return RenderOutput(*pictures[0])
        return RenderOutput(*(np.concatenate(rows) for rows in zip(*pictures, strict=True)))

    def launch(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Starts rendering one sample that is on the device already."""
        return self._frame.launch(inputs)

    def _enqueue(self) -> None:
        """Starts the network between the places that it was told."""
        if not self._context.execute_async_v3(self._stream.handle):
            raise RuntimeError("the network could not be started")

    def warm_up(self, batch_limit: int = 1) -> None:
        """Renders once, then captures the network as a CUDA graph if it can be."""
        if not self._is_captured:
            self.render(blank_input(self._info))
            self._frame.capture()
            self._is_captured = True

    def close(self) -> None:
        """Frees the engine and its memory."""
        del self._transfers, self._frame, self._context, self._engine
        self._stream.close()
