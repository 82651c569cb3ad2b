# SPDX-License-Identifier: Apache-2.0
"""The exported generator in ONNX Runtime on the CPU. Does not import torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from styleavatar_core.engine.base import EngineInfo, RenderInput, RenderOutput, blank_input
from styleavatar_core.errors import AssetError, RenderError


class OnnxEngine:
    """Runs an exported avatar, one sample at a time.

    Args:
        model: ONNX file, as ``export_onnx`` writes it, or its contents.
        thread_count: Threads within an operator.
        precision: What the graph computes in, for those who ask.
        note: Goes into ``EngineInfo``.

    Raises:
        AssetError: The model cannot be loaded.
    """

    def __init__(
        self,
        model: Path | bytes,
        *,
        thread_count: int = 2,
        precision: str = "fp32",
        note: str = "",
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = thread_count
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Spinning threads would starve tracking and encoding, which share the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                str(model) if isinstance(model, Path) else model,
                options,
                providers=["CPUExecutionProvider"],
            )
        except Exception as error:  # the runtime's exceptions have no common base
            name = model.name if isinstance(model, Path) else "the graph"
            raise AssetError(f"{name} cannot be loaded by ONNX Runtime: {error}") from error
        shapes = {node.name: node.shape for node in self._session.get_inputs()}
        image = next(node for node in self._session.get_outputs() if node.name == "image")
        self._info = EngineInfo(
            "onnxruntime",
            precision,
            int(image.shape[1]),
            int(shapes["texture_rendering"][1]),
            int(shapes["uv_rendering"][1]),
            note,
        )

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
        feed = {
            "texture_rendering": inputs.texture_rendering[index : index + 1],
            "uv_rendering": inputs.uv_rendering[index : index + 1],
            "face_mask": inputs.face_mask[index : index + 1],
        }
        try:
            image, mask = self._session.run(["image", "mask"], feed)
        except Exception as error:  # the runtime's exceptions have no common base
            raise RenderError(f"ONNX Runtime could not render this frame: {error}") from error
        return image, mask

    def warm_up(self) -> None:
        """Renders once."""
        self.render(blank_input(self._info))

    def close(self) -> None:
        """Frees the session."""
        del self._session
