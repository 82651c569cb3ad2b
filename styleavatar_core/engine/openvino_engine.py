# SPDX-License-Identifier: Apache-2.0
"""The exported generator in OpenVINO on the CPU. Does not import torch."""

from __future__ import annotations

import io

import numpy as np
import openvino

from styleavatar_core.engine.base import EngineInfo, RenderInput, RenderOutput, blank_input
from styleavatar_core.errors import AssetError, RenderError

_DEVICE = "CPU"


def _properties(thread_count: int) -> dict[str, object]:
    """Returns how models are compiled: for latency, exactly, on cores that others use too."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": thread_count,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }


class OpenVinoEngine:
    """Runs a compiled avatar, one sample at a time; made by ``compile`` or ``load``.

    Args:
        model: The compiled model.
        precision: What the graph's weights are in, for those who ask.
        note: Goes into ``EngineInfo``.
    """

    def __init__(
        self, model: openvino.CompiledModel, *, precision: str = "fp32", note: str = ""
    ) -> None:
        self._model = model
        self._request = model.create_infer_request()
        shapes = {port.any_name: port.shape for port in (*model.inputs, *model.outputs)}
        self._info = EngineInfo(
            "openvino",
            precision,
            int(shapes["image"][1]),
            int(shapes["texture_rendering"][1]),
            int(shapes["uv_rendering"][1]),
            note,
        )

    @classmethod
    def compile(cls, model: bytes, *, thread_count: int = 2, **about: str) -> OpenVinoEngine:
        """Compiles an ONNX model for this machine.

        Args:
            model: The ONNX model.
            thread_count: Threads within an operator.
            about: ``precision`` and ``note``.

        Raises:
            AssetError: OpenVINO refuses the model.
        """
        core = openvino.Core()
        try:
            graph = core.read_model(model=model)
            return cls(core.compile_model(graph, _DEVICE, _properties(thread_count)), **about)
        except RuntimeError as error:
            raise AssetError(f"OpenVINO cannot compile the graph: {error}") from error

    @classmethod
    def load(cls, compiled: bytes, *, thread_count: int = 2, **about: str) -> OpenVinoEngine:
        """Loads what :meth:`export` gave.

        Args:
            compiled: The compiled model.
            thread_count: Threads within an operator.
            about: ``precision`` and ``note``.

        Raises:
            AssetError: The model was compiled by another version or is damaged.
        """
        core = openvino.Core()
        try:
            model = core.import_model(io.BytesIO(compiled), _DEVICE, _properties(thread_count))
            return cls(model, **about)
        except RuntimeError as error:
            raise AssetError(f"the graph cannot be loaded by OpenVINO: {error}") from error

    def export(self) -> bytes:
        """Returns the compiled model, which only the same version on this kind of CPU takes."""
        exported: bytes = self._model.export_model().getvalue()
        return exported

    @property
    def info(self) -> EngineInfo:
        """What it is."""
        return self._info

    def render(self, inputs: RenderInput) -> RenderOutput:
        """Renders a batch."""
        results = [self._render_one(inputs, index) for index in range(len(inputs.face_mask))]
        images, masks = zip(*results, strict=True)
        return RenderOutput(np.concatenate(images), np.concatenate(masks))

    def _render_one(self, inputs: RenderInput, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Renders one sample: (1, H, W, 3) and (1, H, W)."""
        sample = slice(index, index + 1)
        feed = {
            "texture_rendering": inputs.texture_rendering[sample],
            "uv_rendering": inputs.uv_rendering[sample],
            "face_mask": inputs.face_mask[sample],
        }
        try:
            results = self._request.infer(feed)
        except RuntimeError as error:
            raise RenderError(f"OpenVINO could not render this frame: {error}") from error
        return results["image"], results["mask"]

    def warm_up(self) -> None:
        """Renders once."""
        self.render(blank_input(self._info))

    def close(self) -> None:
        """Frees the model."""
        del self._request, self._model
