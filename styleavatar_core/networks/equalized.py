# SPDX-License-Identifier: Apache-2.0
"""Layers with equalised learning rate, without style: what encoders and the discriminator are of.

Weights are stored at unit variance and scaled by 1/sqrt(fan-in) when used.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from styleavatar_core.ops.bias_act import activate
from styleavatar_core.ops.modulated_conv2d import conv2d_down


class EqualLinear(nn.Module):
    """Linear layer with equalised learning rate.

    Args:
        in_features: Width of the input.
        out_features: Width of the output.
        bias_start: Initial value of the biases.
        gain: Gain of a leaky ReLU after it; None for no activation.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias_start: float = 0.0,
        gain: float | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features))
        self.bias = nn.Parameter(torch.full((out_features,), bias_start))
        self.scale = 1 / math.sqrt(in_features)
        self.gain = gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (B, in_features) to (B, out_features)."""
        if self.gain is None:
            return F.linear(x, self.weight * self.scale, self.bias)
        weight = self.weight * (self.scale * self.gain)
        return activate(F.linear(x, weight, self.bias * self.gain))


class EqualConv2d(nn.Module):
    """Convolution with equalised learning rate, bias and leaky ReLU; may halve the resolution.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the kernel.
        gain: Gain of the leaky ReLU; None for no activation.
        down_taps: FIR taps before a stride of 2; None keeps the resolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        gain: float | None,
        down_taps: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.scale = 1 / math.sqrt(in_channels * kernel_size**2)
        self.gain = gain
        self.down_taps = down_taps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (B, in_channels, H, W) to (B, out_channels, H, W), or half that size."""
        gain = self.gain or 1.0
        weight, bias = self.weight * (self.scale * gain), self.bias * gain
        if self.down_taps is not None:
            y = conv2d_down(x, weight, bias, self.down_taps)
        else:
            y = F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
        return y if self.gain is None else activate(y)


class EncoderBlock(nn.Module):
    """One level of an encoder: convolution at the level's resolution, then halving.

    Args:
        in_channels: Channels that arrive.
        channels: Channels at this level.
        out_channels: Channels at the next.
        gain: Gain of the activations.
        taps: FIR taps of the halving.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        out_channels: int,
        *,
        gain: float,
        taps: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.conv = EqualConv2d(in_channels, channels, 3, gain=gain)
        self.down = EqualConv2d(channels, out_channels, 3, gain=gain, down_taps=taps)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps (B, in_channels, H, W) to (B, channels, H, W) and (B, out_channels, H/2, W/2)."""
        y = self.conv(x)
        return y, self.down(y)
