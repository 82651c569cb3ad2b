# SPDX-License-Identifier: Apache-2.0
"""A generator that was never trained, and its frozen form's distance from it."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from styleavatar_core.engine.base import RenderInput
from styleavatar_core.engine.cpu.layers import with_less_work
from styleavatar_core.engine.face_lookup import FaceLookup
from styleavatar_core.engine.frozen.freeze import FrozenGenerator, can_take_samples, freeze
from styleavatar_core.engine.frozen.loading import make_lookup
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.export.parity import random_input
from styleavatar_core.networks import FeatureGenerator, PortraitGenerator, get_preset


class Untrained(nn.Module):
    """A generator that was never trained, with the arguments that are constant in use.

    Untrained weights cost the same as trained ones.
    """

    def __init__(self, preset: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        config = get_preset(preset)
        self.generator = PortraitGenerator(config).eval()
        self.style = torch.randn(1, config.style.style_dim)
        with torch.no_grad():
            self.face = FeatureGenerator(config.face).eval()(self.style)
            self.background = FeatureGenerator(config.background).eval()(self.style)

    def forward(
        self, rendering: torch.Tensor, uv: torch.Tensor, face_mask: torch.Tensor
    ) -> torch.Tensor:
        """Renders with nothing folded: (1, 3, H, W)."""
        window = torch.zeros(1, 2, dtype=torch.int64)
        output = self.generator(
            self.style, rendering, uv, face_mask, self.face, self.background, window
        )
        image: torch.Tensor = output.image
        return image

    def freeze(self, *, samples_face: bool = True) -> FrozenGenerator:
        """Returns it frozen; ``samples_face`` as of ``freeze``."""
        return freeze(
            self.generator, self.style, self.face, self.background, samples_face=samples_face
        )

    def lookup(self) -> FaceLookup | None:
        """Returns what samples the face on a CPU."""
        return make_lookup(self.face) if can_take_samples(self.generator.config) else None

    def sample(self) -> RenderInput:
        """Returns an input, always the same."""
        # On this device nothing is computed, and the process stays as it is.
        return random_input(TorchEngine(self.freeze(), device="meta"))


def tensors_of(sample: RenderInput) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns an input as the unfrozen generator takes it."""
    return (
        torch.from_numpy(sample.texture_rendering).permute(0, 3, 1, 2) / 127.5 - 1,
        torch.from_numpy(sample.uv_rendering).permute(0, 3, 1, 2),
        torch.from_numpy(sample.face_mask)[:, None].float(),
    )


def to_bytes(image: torch.Tensor) -> np.ndarray:
    """Returns (1, 3, H, W) in [-1, 1] as (H, W, 3) uint8."""
    pixels = ((image[0].permute(1, 2, 0).clamp(-1, 1) + 1) * 127.5).round()
    return pixels.to(torch.uint8).numpy()


def frozen_errors(preset: str) -> dict[str, float]:
    """Returns how far frozen images are from trained ones at most, in millionths of their spread.

    Frozen as every runtime gets it, and with the layers that torch on a CPU has instead.
    """
    untrained = Untrained(preset)
    frozen = untrained.freeze()
    inputs = tensors_of(untrained.sample())
    maps = (untrained.face, untrained.background)
    with torch.inference_mode():
        trained = untrained(*inputs)

        def error_ppm() -> float:
            output = frozen.generator(frozen.style, *inputs, *maps, frozen.window).image
            return float(1e6 * (output - trained).abs().max() / trained.std())

        plain_ppm = error_ppm()
        with_less_work(frozen).generator.to_image = torch.nn.PixelShuffle(2)  # not bytes at once
        return {"frozen_max_error_ppm": plain_ppm, "torch_cpu_max_error_ppm": error_ppm()}
