# SPDX-License-Identifier: Apache-2.0
"""Layers of StyleGAN2 in the wavelet domain (paper, Sec. 3.3), as the field names them.

Weights are stored at unit variance and scaled by 1/sqrt(fan-in) when used: equalised learning
rate.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from styleavatar_core.networks.config import StyleConfig
from styleavatar_core.networks.equalized import EqualLinear
from styleavatar_core.ops.bias_act import activate
from styleavatar_core.ops.modulated_conv2d import modulated_conv2d
from styleavatar_core.ops.to_rgb import to_rgb


class ModulatedConv2d(nn.Module):
    """Style-modulated convolution.

    Args:
        style: What all layers share.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the kernel.
        demodulate: Whether kernels are scaled to unit norm.
        doubles: Whether the resolution doubles.
    """

    def __init__(
        self,
        style: StyleConfig,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        demodulate: bool = True,
        doubles: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        if style.is_modulated:
            self.modulation: nn.Module = EqualLinear(style.style_dim, in_channels, bias_start=1.0)
        else:
            self.modulation = NoModulation(in_channels)
        self.scale = 1 / math.sqrt(in_channels * kernel_size**2)
        self.demodulate = demodulate and style.is_modulated
        self.up_taps = style.taps if doubles else None

    def forward(
        self, x: torch.Tensor, style: torch.Tensor, bias: torch.Tensor, gain: float = 1.0
    ) -> torch.Tensor:
        """Maps (B or 1, I, H, W) and style (B, style_dim) to (B, O, H', W'), biased, times gain."""
        return modulated_conv2d(
            x,
            self.weight * self.scale,
            self.modulation(style),
            bias,
            gain=gain,
            demodulate=self.demodulate,
            up_taps=self.up_taps,
        )


class NoModulation(nn.Module):
    """Stands where a plain convolution has no modulation: all coefficients are 1."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels

    def forward(self, style: torch.Tensor) -> torch.Tensor:
        """Returns ones, (B, in_channels)."""
        return style.new_ones((len(style), self.in_channels))


class NoiseInjection(nn.Module):
    """Adds noise with one learned strength, zero at the start."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Adds noise (B or 1, 1, H, W) to x (B, C, H, W)."""
        return x + self.weight * noise


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, optional noise, bias and leaky ReLU.

    Args:
        style: What all layers share.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        doubles: Whether the resolution doubles.
        has_noise: Whether noise may be injected.
        has_activation: Whether the leaky ReLU follows.
    """

    def __init__(
        self,
        style: StyleConfig,
        in_channels: int,
        out_channels: int,
        *,
        doubles: bool = False,
        has_noise: bool = False,
        has_activation: bool = True,
    ) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(style, in_channels, out_channels, 3, doubles=doubles)
        self.noise = NoiseInjection() if has_noise or style.has_unused_noise else None
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.gain = style.activation_gain if has_activation else None

    def forward(
        self, x: torch.Tensor, style: torch.Tensor, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Maps (B or 1, in_channels, H, W), style (B, style_dim) to (B, out_channels, H', W')."""
        gain = 1.0 if self.gain is None else self.gain
        y = self.conv(x, style, self.bias, gain)
        if noise is not None and self.noise is not None:
            y = self.noise(y, noise * gain)
        return y if self.gain is None else activate(y)


class ToRGB(nn.Module):
    """Adds a layer's contribution to the RGB image that grows along the decoder.

    The image is kept as pixels, not as Haar bands: doubling it there equals inverse Haar, FIR and
    Haar.
    """

    def __init__(self, style: StyleConfig, in_channels: int) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(style, in_channels, 12, 1, demodulate=False)
        self.conv.weight.data *= style.rgb_start
        self.bias = nn.Parameter(torch.zeros(12))

    def forward(
        self, x: torch.Tensor, style: torch.Tensor, pixels: torch.Tensor | None
    ) -> torch.Tensor:
        """Maps x (B, C, H, W) and the pixels so far (B, 12, H / 2, W / 2) to (B, 12, H, W)."""
        conv = self.conv
        return to_rgb(x, conv.weight * conv.scale, conv.modulation(style), self.bias, pixels)


class ConstantInput(nn.Module):
    """Learned constant that a generator starts from."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.randn(1, channels, size, size))

    def forward(self) -> torch.Tensor:
        """Returns (1, channels, size, size)."""
        return self.constant
