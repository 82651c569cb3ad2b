# SPDX-License-Identifier: Apache-2.0
"""The frozen generator in torch."""

from __future__ import annotations

import torch

from styleavatar_core.engine.base import (
    INPUT_NAMES,
    EngineInfo,
    RenderEngine,
    RenderInput,
    RenderOutput,
)
from styleavatar_core.engine.freeze import FrozenGenerator


class TorchEngine(RenderEngine):
    """Runs the frozen generator eagerly.

    Args:
        generator: The frozen generator.
        device: Where it runs.
        note: Goes into ``EngineInfo``.
    """

    runtime = "torch"

    def __init__(self, generator: FrozenGenerator, *, device: str = "cpu", note: str = "") -> None:
        config = generator.config
        is_half = generator.face_feature.dtype == torch.float16
        precision = "fp16" if is_half else "fp32"
        sizes = (config.image_size_px, config.rendering_size_px, config.uv_size)
        super().__init__(EngineInfo("torch", precision, *sizes, note))
        moved = generator.to(device)
        self._generator = moved.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device = device

    def _render(self, inputs: RenderInput) -> RenderOutput:
        arrays = [getattr(inputs, name) for name in INPUT_NAMES]
        with torch.inference_mode():
            image, mask = self._generator(
                *(torch.from_numpy(array).to(self._device) for array in arrays)
            )
        return RenderOutput(image.cpu().contiguous().numpy(), mask.cpu().contiguous().numpy())

    def close(self) -> None:
        """Frees the weights."""
        del self._generator
