# SPDX-License-Identifier: Apache-2.0
"""The frozen generator in torch."""

from __future__ import annotations

import torch

from styleavatar_core.engine.base import EngineInfo, RenderInput, RenderOutput, blank_input
from styleavatar_core.engine.freeze import FrozenGenerator
from styleavatar_core.errors import RenderError


class TorchEngine:
    """Runs the frozen generator eagerly.

    Args:
        generator: The frozen generator.
        device: Where it runs.
        note: Goes into ``EngineInfo``.
    """

    def __init__(self, generator: FrozenGenerator, *, device: str = "cpu", note: str = "") -> None:
        moved = generator.to(device)
        self._generator = moved.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device = device
        config = generator.config
        is_half = generator.face_feature.dtype == torch.float16
        self._info = EngineInfo(
            "torch",
            "fp16" if is_half else "fp32",
            config.image_size_px,
            config.rendering_size_px,
            config.uv_size,
            note,
        )

    @property
    def info(self) -> EngineInfo:
        """What it is."""
        return self._info

    def render(self, inputs: RenderInput) -> RenderOutput:
        """Renders a batch."""
        tensors = [
            torch.from_numpy(array).to(self._device)
            for array in (inputs.texture_rendering, inputs.uv_rendering, inputs.face_mask)
        ]
        try:
            with torch.inference_mode():
                image, mask = self._generator(*tensors)
        except RuntimeError as error:
            raise RenderError(f"torch could not render this frame: {error}") from error
        return RenderOutput(image.cpu().contiguous().numpy(), mask.cpu().contiguous().numpy())

    def warm_up(self) -> None:
        """Renders once."""
        self.render(blank_input(self._info))

    def close(self) -> None:
        """Frees the weights."""
        del self._generator
