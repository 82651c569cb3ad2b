# SPDX-License-Identifier: Apache-2.0
"""The exported generator in TensorRT: persistent bindings, the network as one CUDA graph.

Has not run on a GPU yet; every name that it uses is compared with the published bindings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorrt
import torch

from styleavatar_core.engine.base import EngineLabel, SampleEngine, blank_input
from styleavatar_core.errors import AssetError

_INPUTS = {
    "texture_rendering": torch.uint8,
    "uv_rendering": torch.float32,
    "face_mask": torch.uint8,
}
_OUTPUTS = {"image": torch.uint8, "mask": torch.uint8}


class TensorRtEngine(SampleEngine):
    """Runs a loaded engine on the current CUDA device, one sample at a time.

    Args:
        engine: What ``load_plan`` gave, refitted if need be.
        label: What it says of itself.

    Raises:
        AssetError: The engine is not one of a generator.
    """

    runtime = "TensorRT"
    device = "cuda"

    def __init__(self, engine: tensorrt.ICudaEngine, label: EngineLabel) -> None:
        names = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        if names != {*_INPUTS, *_OUTPUTS}:
            raise AssetError(f"the engine has other inputs and outputs: {', '.join(sorted(names))}")
        shapes = {name: tuple(engine.get_tensor_shape(name)) for name in names}
        super().__init__("tensorrt", shapes, label)
        self._engine = engine
        self._context = engine.create_execution_context()
        self._stream = torch.cuda.Stream()
        kinds = _INPUTS | _OUTPUTS
        self._device = {
            name: torch.zeros(shapes[name], dtype=kind, device="cuda")
            for name, kind in kinds.items()
        }
        self._host = {
            name: torch.zeros(shapes[name], dtype=kind, pin_memory=True)
            for name, kind in kinds.items()
        }
        for name, tensor in self._device.items():
            self._context.set_tensor_address(name, tensor.data_ptr())
        self._graph: torch.cuda.CUDAGraph | None = None

    def _run(self, feed: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        for name, sample in feed.items():
            self._host[name].copy_(torch.from_numpy(np.ascontiguousarray(sample)))
        with torch.cuda.stream(self._stream):
            for name in _INPUTS:
                self._device[name].copy_(self._host[name], non_blocking=True)
            self._start()
            for name in _OUTPUTS:
                self._host[name].copy_(self._device[name], non_blocking=True)
        self._stream.synchronize()
        return self._host["image"].numpy(), self._host["mask"].numpy()

    def launch(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Starts rendering one sample that is on the device already."""
        callers = torch.cuda.current_stream()
        self._stream.wait_stream(callers)
        with torch.cuda.stream(self._stream):
            for name, source in zip(_INPUTS, inputs, strict=True):
                self._device[name].copy_(source, non_blocking=True)
            self._start()
        callers.wait_stream(self._stream)
        return tuple(self._device[name] for name in _OUTPUTS)

    def _start(self) -> None:
        """Starts the network on the engine's stream."""
        if self._graph is not None:
            self._graph.replay()
        else:
            self._enqueue()

    def _enqueue(self) -> None:
        """Starts the network kernel by kernel."""
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise RuntimeError("the network could not be started")

    def warm_up(self) -> None:
        """Renders once, then captures the network as a CUDA graph."""
        self.render(blank_input(self._info))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            self._enqueue()
        self._graph = graph

    def close(self) -> None:
        """Frees the engine and its memory."""
        self._graph = None
        del self._context, self._engine, self._device, self._host
