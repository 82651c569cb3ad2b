# SPDX-License-Identifier: Apache-2.0
"""The composition's parts with fixed maps and a fixed window (paper, Sec. 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class WindowedUNet(nn.Module):
    """The first StyleUNet for a fixed window: its last level is computed around the window only.

    Gives a smaller canvas with the same middle, from which the window is cut as from the whole one.

    Args:
        network: The StyleUNet, its layers frozen.
        window_size: Side of the window, in texels of the canvas.
        offset: Largest distance of the window's middle from the canvas's, texels.
    """

    _HALO = 4  # texels of the level below that up-convolution, filter and convolution look at

    def __init__(self, network: nn.Module, window_size: int, offset: int) -> None:
        super().__init__()
        self.network = network
        self.size = 2 * ((window_size // 2 + offset + 1) // 2 + self._HALO)  # at half resolution

    def forward(
        self, style: torch.Tensor, image: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns feature (B, C, 2 size, 2 size) and image of twice that side."""
        result: tuple[torch.Tensor, torch.Tensor] = self.network(style, image, crop=self._crop)
        return result

    def _crop(
        self, feature: torch.Tensor, image: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cuts the middle out of what the last level gets."""
        start = max(0, (feature.shape[-1] - self.size) // 2)
        stop = feature.shape[-1] - start
        rows, pixels = slice(start, stop), slice(2 * start, 2 * stop)
        return feature[..., rows, rows], image[..., pixels, pixels]


class FrozenSampler(nn.Module):
    """Bilinear sampling of a constant map, as one table look-up per sample.

    A row of the table holds the four neighbours' values, so that a sample is one gather and two
    linear interpolations: several times faster than grid sampling in runtimes for CPUs.

    Args:
        texture: (1, C, F, F) map in UV space.
    """

    def __init__(self, texture: torch.Tensor) -> None:
        super().__init__()
        self.size = texture.shape[-1]
        self.channels = texture.shape[1]
        pixels = texture[0].permute(1, 2, 0)  # (F, F, C)
        top = torch.cat([pixels[:-1, :-1], pixels[:-1, 1:]], dim=2)
        bottom = torch.cat([pixels[1:, :-1], pixels[1:, 1:]], dim=2)
        table = torch.cat([top, bottom], dim=2).reshape(-1, 4 * self.channels)
        self.table = nn.Parameter(table.detach().clone(), requires_grad=False)

    def forward(self, texture: torch.Tensor, uv: torch.Tensor) -> torch.Tensor:
        """Samples the constant map at uv (B, 2, H, W): (B, C, H, W)."""
        position = (uv * self.size - 0.5).clamp(0.0, self.size - 1.0)
        corner = position.floor().clamp(max=self.size - 2.0)
        weight = (position - corner)[..., None].to(self.table.dtype)  # (B, 2, H, W, 1)
        row = corner[:, 1] * (self.size - 1) + corner[:, 0]  # exact: far below 2^24
        corners = F.embedding(row.long(), self.table)  # (B, H, W, 4C)
        half = 2 * self.channels
        top, bottom = corners[..., :half], corners[..., half:]
        sides = top + weight[:, 1] * (bottom - top)
        left, right = sides[..., : self.channels], sides[..., self.channels :]
        values = left + weight[:, 0] * (right - left)
        return values.permute(0, 3, 1, 2)


class ExactSampler(nn.Module):
    """Samples a map of low precision at coordinates of full precision.

    Args:
        sampler: Maps (texture, uv) to samples.
    """

    def __init__(self, sampler: nn.Module) -> None:
        super().__init__()
        self.sampler = sampler

    def forward(self, texture: torch.Tensor, uv: torch.Tensor) -> torch.Tensor:
        """Samples (B or 1, C, F, F) at uv (B, 2, H, W): (B, C, H, W) of the map's type."""
        samples: torch.Tensor = self.sampler(texture.float(), uv)
        return samples.to(texture.dtype)
