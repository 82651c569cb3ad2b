# SPDX-License-Identifier: Apache-2.0
"""Noise that moves with the face instead of sticking to the screen (paper, Sec. 3.3).

One map per texel holds the noise of all decoder levels: 1 channel for the level at the fused map's
resolution, 4 for the next (a Haar pack), 16 for the one after.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from styleavatar_core.networks.config import GeneratorConfig
from styleavatar_core.ops.haar import inverse_haar_transform

_FIXED_SEED = 0


@dataclass(frozen=True, slots=True)
class Noise:
    """The three sources, composed like the features are.

    Attributes:
        foreground: (B or 1, N, Fc, Fc), windowed with the foreground.
        face: (B or 1, N, F, F) in UV space, sampled like the neural texture.
        background: (B or 1, N, Fw, Fw), fixed to the window.
    """

    foreground: torch.Tensor
    face: torch.Tensor
    background: torch.Tensor

    def to(self, device: torch.device) -> Noise:
        """Returns the same noise on a device."""
        parts = (self.foreground, self.face, self.background)
        return Noise(*(part.to(device, non_blocking=True) for part in parts))

    def pinned(self) -> Noise:
        """Returns the same noise in memory that a GPU copies from by itself."""
        parts = (self.foreground, self.face, self.background)
        return Noise(*(part.contiguous().pin_memory() for part in parts))

    def of(self, samples: slice) -> Noise:
        """Returns the noise of some samples of a batch."""
        return Noise(self.foreground[samples], self.face[samples], self.background[samples])


def sample_noise(
    config: GeneratorConfig,
    batch_size: int = 1,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Noise | None:
    """Draws normal noise for a preset.

    Args:
        config: The preset.
        batch_size: Samples.
        generator: Source of randomness.
        device: Where the noise lives.

    Returns:
        The noise, or None if the preset injects none.
    """
    channels = config.noise_channels
    if channels == 0:
        return None
    foreground, face, background = (
        torch.randn(batch_size, channels, size, size, generator=generator, device=device)
        for size in (config.canvas_size, config.face.size, config.feature_size)
    )
    return Noise(foreground, face, background)


def fixed_noise(config: GeneratorConfig) -> Noise | None:
    """Returns the noise of inference, always the same; its background is that of training too.

    Args:
        config: The preset.

    Returns:
        Noise of batch 1, or None if the preset injects none.
    """
    return sample_noise(config, generator=torch.Generator().manual_seed(_FIXED_SEED))


def unpack_noise(noise: torch.Tensor, sizes: tuple[int, ...]) -> dict[int, torch.Tensor]:
    """Splits a composed noise map into one map per decoder level.

    Args:
        noise: (B, N, Fw, Fw).
        sizes: Resolutions with noise, each a power of two times Fw.

    Returns:
        (B, 1, r, r) by resolution r.
    """
    maps: dict[int, torch.Tensor] = {}
    start = 0
    for size in sizes:
        scale = size // noise.shape[-1]
        part = noise[:, start : start + scale**2]
        start += scale**2
        while part.shape[1] > 1:
            part = inverse_haar_transform(part)
        maps[size] = part
    return maps
