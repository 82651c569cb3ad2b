# SPDX-License-Identifier: Apache-2.0
"""From a time or identity to a style: positional code and mapping network (paper, Sec. 3.2-3.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

_MAPPING_SLOPE = 0.1


def position_code(x: torch.Tensor, style_dim: int, octave_count: int = 32) -> torch.Tensor:
    """Embeds scalars as [x, sin x, cos x, sin 2x, cos 2x, sin 4x, ...] (Sec. 3.2).

    Args:
        x: (B,) float. Time for z_tmp, identity for z_id. The published code uses frame index / 5000
            and 32 octaves; those above 2^12 tell single frames apart and nothing else.
        style_dim: Length of the code: zero where no octave is left, cut where it does not fit.
        octave_count: Number of frequencies 2^k.

    Returns:
        (B, style_dim) float32.
    """
    # In float32 as published: above 2^20 the phase is a hash of the rounding, not a position.
    x = x.to(torch.float32)
    frequencies = 2.0 ** torch.arange(octave_count, device=x.device, dtype=torch.float32)
    phase = x[:, None] * frequencies  # (B, octaves)
    waves = torch.stack([phase.sin(), phase.cos()], dim=2).flatten(1)
    code = torch.cat([x[:, None], waves], dim=1)[:, :style_dim]
    return F.pad(code, (0, style_dim - code.shape[1]))


class MappingNetwork(nn.Module):
    """Normalises a code and maps it to the style that all layers share.

    Args:
        style_dim: Size of code and style.
        layer_count: Number of linear layers.
    """

    def __init__(self, style_dim: int, layer_count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(style_dim, style_dim) for _ in range(layer_count))

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        """Maps (B, style_dim) to the style, (B, style_dim)."""
        x = code * torch.rsqrt(code.square().mean(dim=1, keepdim=True) + 1e-8)
        for index, layer in enumerate(self.layers):
            x = layer(x if index == 0 else F.leaky_relu(x, _MAPPING_SLOPE))
        return x
