# SPDX-License-Identifier: Apache-2.0
"""Layers of the generator with a fixed style: modulation, demodulation and gains folded away.

Each takes the arguments of the layer it replaces and ignores the style, so that the networks'
forward pass stays the one definition for training and inference.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from styleavatar_core.networks.equalized import EqualConv2d
from styleavatar_core.networks.layers import ModulatedConv2d, StyledConv, ToRGB
from styleavatar_core.networks.style_unet import FromRGB
from styleavatar_core.ops.bias_act import LEAKY_SLOPE
from styleavatar_core.ops.haar import haar_transform, pack_matrix
from styleavatar_core.ops.modulated_conv2d import demodulation, fold_down, fold_up
from styleavatar_core.ops.to_rgb import double_pixels
from styleavatar_core.ops.upfirdn2d import fir_kernel


class FrozenConv(nn.Module):
    """Plain convolution with folded weights, optional noise and leaky ReLU.

    Args:
        weight: (O, I, K, K) folded weight.
        bias: (O,) folded bias.
        slope: Slope of the leaky ReLU; None for no activation.
        noise_strength: Folded strength of the noise; 0 ignores it.
        up_taps: FIR taps of a doubling convolution.
        down_taps: FIR taps of a halving convolution.
    """

    fir: torch.Tensor
    noise_strength: torch.Tensor

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor,
        *,
        slope: float | None,
        noise_strength: float = 0.0,
        up_taps: tuple[float, ...] | None = None,
        down_taps: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__()
        self.slope, self.has_noise = slope, noise_strength != 0.0
        # Not a number in the graph but one of its weights: it is another for each avatar.
        self.register_buffer("noise_strength", torch.tensor(noise_strength))
        self.fir_taps: tuple[float, ...] | None = None
        self.mode = "up" if up_taps else "down" if down_taps else "same"
        taps = up_taps or down_taps
        if taps is not None and len(taps) > 2:
            self.fir_taps = taps  # longer filters are cheaper as a depthwise pass
            channels = weight.shape[0 if self.mode == "up" else 1]
            gain = 4.0 if self.mode == "up" else 1.0
            kernel = fir_kernel(taps, gain, channels, weight.dtype, weight.device)
            self.register_buffer("fir", kernel.clone())
            weight = weight.transpose(0, 1) if self.mode == "up" else weight
        elif up_taps is not None:
            weight = fold_up(weight, up_taps)
        elif down_taps is not None:
            weight = fold_down(weight, down_taps)
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.bias = nn.Parameter(bias.detach(), requires_grad=False)

    def forward(
        self,
        x: torch.Tensor,
        style: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        channels: slice | None = None,
    ) -> torch.Tensor:
        """Maps (B, I, H, W) to (B, O, H', W'), or to some channels of it."""
        y = self._convolve(x, channels)
        if noise is not None and self.has_noise:
            y = y + self.noise_strength * noise
        return y if self.slope is None else F.leaky_relu(y, self.slope)

    def _convolve(self, x: torch.Tensor, channels: slice | None) -> torch.Tensor:
        """Convolves, filters and adds the bias."""
        weight: torch.Tensor = self.weight
        bias: torch.Tensor = self.bias
        if channels is not None:
            weight = weight[:, channels] if self.mode == "up" else weight[channels]
            bias = bias[channels]
        if self.mode == "same":
            return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
        if self.fir_taps is None:
            if self.mode == "up":
                return F.conv_transpose2d(x, weight, bias, stride=2, padding=1)
            return F.conv2d(x, weight, bias, stride=2, padding=1)
        half = len(self.fir_taps) // 2
        if self.mode == "down":
            blurred = F.conv2d(x, self.fir, padding=half, groups=len(self.fir))
            return F.conv2d(blurred, weight, bias, stride=2)
        fir = self.fir if channels is None else self.fir[channels]
        wide = F.conv_transpose2d(x, weight, stride=2)
        return F.conv2d(wide, fir, bias, padding=half - 1, groups=len(fir))


class FrozenPointwise(nn.Module):
    """A 1x1 convolution.

    Args:
        weight: (O, I, 1, 1) folded weight.
        bias: (O,) folded bias, or None.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (B, I, H, W) to (B, O, H, W)."""
        return F.conv2d(x, self.weight, self.bias)


class FrozenToRGB(nn.Module):
    """ToRGB with the inverse Haar transform in the weight of its 1x1 convolution.

    Args:
        weight: (12, I, 1, 1) folded weight, bands.
        bias: (12,) bias, bands.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        matrix = pack_matrix(3, weight.dtype, weight.device).t()  # (12 pixels, 12 bands)
        pixels = torch.einsum("pb,bi->pi", matrix, weight[:, :, 0, 0])
        self.pixels = FrozenPointwise(pixels[:, :, None, None], matrix @ bias)

    def forward(
        self, x: torch.Tensor, style: torch.Tensor | None, pixels: torch.Tensor | None
    ) -> torch.Tensor:
        """Maps x (B, C, H, W) and the pixels so far (B, 12, H / 2, W / 2) to (B, 12, H, W)."""
        own: torch.Tensor = self.pixels(x)
        return own if pixels is None else own + double_pixels(pixels)


class FrozenFromRGB(nn.Module):
    """FromRGB as one strided convolution of the image: the Haar transforms are in its weight.

    Args:
        weight: (O, P, 1, 1) folded weight, P bands.
        bias: (O,) folded bias.
        haar_levels: Haar transforms before the convolution.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, haar_levels: int) -> None:
        super().__init__()
        self.stride = 2**haar_levels
        count = 3 * self.stride**2
        packs = torch.eye(count).reshape(count, 3, self.stride, self.stride)
        for _ in range(haar_levels):
            packs = haar_transform(packs)
        image_weight = torch.einsum("op,np->on", weight[:, :, 0, 0], packs[:, :, 0, 0])
        image_weight = image_weight.reshape(-1, 3, self.stride, self.stride)
        self.weight = nn.Parameter(image_weight.detach(), requires_grad=False)
        self.bias = nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, image: torch.Tensor, feature: torch.Tensor | None) -> torch.Tensor:
        """Maps an image and a feature (B, C, r, r) to (B, C, r, r)."""
        own = F.conv2d(image, self.weight, self.bias, stride=self.stride)
        own = F.leaky_relu(own, LEAKY_SLOPE)
        return own if feature is None else feature + own


def _modulated_weight(
    conv: ModulatedConv2d, style: torch.Tensor, gain: float = 1.0
) -> torch.Tensor:
    """Returns the (O, I, K, K) weight of a modulated convolution for one style (1, style_dim)."""
    styles = conv.modulation(style) * conv.scale  # (1, I)
    taps = conv.weight[0, 0].numel()
    # A kernel is one long row: sums over few taps at a time take several times as long.
    rows = conv.weight.flatten(1) * (styles * gain).repeat_interleave(taps, dim=1)
    if conv.demodulate:
        energy = torch.linalg.vector_norm(rows, dim=1, keepdim=True).square() / gain**2
        rows *= demodulation(energy)
    return rows.view_as(conv.weight)


def freeze_layer(layer: nn.Module, style: torch.Tensor) -> nn.Module | None:
    """Returns the frozen counterpart of a layer, or None if it has none.

    Args:
        layer: A layer of the generator.
        style: (1, style_dim) mapped style.
    """
    if isinstance(layer, StyledConv):
        gain = 1.0 if layer.gain is None else layer.gain
        strength = 0.0 if layer.noise is None else float(layer.noise.weight) * gain
        return FrozenConv(
            _modulated_weight(layer.conv, style, gain),
            layer.bias * gain,
            slope=None if layer.gain is None else LEAKY_SLOPE,
            noise_strength=strength,
            up_taps=layer.conv.up_taps,
        )
    if isinstance(layer, ToRGB):
        return FrozenToRGB(_modulated_weight(layer.conv, style), layer.bias)
    if isinstance(layer, FromRGB):
        gain = layer.conv.gain or 1.0
        weight = layer.conv.weight * (layer.conv.scale * gain)
        return FrozenFromRGB(weight, layer.conv.bias * gain, layer.haar_levels)
    if isinstance(layer, EqualConv2d):
        gain = 1.0 if layer.gain is None else layer.gain
        return FrozenConv(
            layer.weight * (layer.scale * gain),
            layer.bias * gain,
            slope=None if layer.gain is None else LEAKY_SLOPE,
            down_taps=layer.down_taps,
        )
    return None
