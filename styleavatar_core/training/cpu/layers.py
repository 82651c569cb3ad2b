# SPDX-License-Identifier: Apache-2.0
"""Generator layers as a CPU trains them fastest: in few passes over features, which are what costs.

Each is one of :mod:`styleavatar_core.networks` with the same weights and the same result, and does
as that one does where its case is not met. Gradients of gradients are not offered: the
discriminator, whose penalty needs them, is left alone.
"""

from __future__ import annotations

import functools
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from styleavatar_core.networks.composition import FaceSampler, MaskConv
from styleavatar_core.networks.equalized import EqualConv2d
from styleavatar_core.networks.feature_generator import FeatureMaps
from styleavatar_core.networks.layers import StyledConv, ToRGB
from styleavatar_core.ops.bias_act import activate
from styleavatar_core.ops.haar import inverse_haar_transform, pack_matrix
from styleavatar_core.ops.modulated_conv2d import conv2d_up, style_demodulation
from styleavatar_core.training.cpu.functions import (
    add_doubled,
    add_to_blocks,
    finish,
    look_up,
    scale,
    sum_blocks,
)

NetworkT = TypeVar("NetworkT", bound=nn.Module)

_BOX = (1.0, 1.0)  # FIR taps


def with_fewer_passes(network: NetworkT) -> NetworkT:
    """Lets the layers of generators compute in fewer passes, in place; their weights stay.

    Args:
        network: To be trained on a CPU in fp32, tensors in torch's usual order.

    Returns:
        ``network``.
    """
    for layer in network.modules():
        layer.__class__ = _FEWER_PASSES.get(type(layer), type(layer))
    return network


class FewPassStyledConv(StyledConv):
    """Scales, adds the bias and applies the leaky ReLU in one pass, and so backward.

    Where it doubles it filters afterwards: 9 products instead of the 16 of a filtered kernel.
    """

    def forward(
        self, x: torch.Tensor, style: torch.Tensor, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """As :meth:`StyledConv.forward`."""
        conv, gain = self.conv, self.gain
        is_plain = noise is not None or not conv.demodulate or len(x) != len(style)
        if is_plain or gain is None:
            return super().forward(x, style, noise)
        weight, styles = conv.weight * conv.scale, conv.modulation(style)
        if len(style) == 1:
            y = _convolve(x, weight * styles[:, :, None, None], conv.up_taps)
        else:
            y = _convolve(scale(x, styles), weight, conv.up_taps)
        return finish(y, style_demodulation(weight, styles) * gain, self.bias * gain)


def _convolve(
    x: torch.Tensor, weight: torch.Tensor, up_taps: tuple[float, ...] | None
) -> torch.Tensor:
    if up_taps == _BOX:
        return sum_blocks(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
    if up_taps is not None:
        return conv2d_up(x, weight, None, up_taps)
    return F.conv2d(x, weight, padding=1)


class FewPassEqualConv2d(EqualConv2d):
    """Filters first where it halves: 9 products instead of the 16 of a filtered kernel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As :meth:`EqualConv2d.forward`."""
        if self.down_taps != _BOX:
            return super().forward(x)
        gain = self.gain or 1.0
        weight = self.weight * (self.scale * gain / 4)
        y = F.conv2d(add_to_blocks(x), weight, self.bias * gain, stride=2)
        return y if self.gain is None else activate(y)


class FewPassToRGB(ToRGB):
    """Multiplies by one matrix per sample instead of scaling; adds the doubled in place."""

    def forward(
        self, x: torch.Tensor, style: torch.Tensor, pixels: torch.Tensor | None
    ) -> torch.Tensor:
        """As :meth:`ToRGB.forward`."""
        conv = self.conv
        to_pixels = pack_matrix(3, x.dtype, x.device).t()
        kernel = (to_pixels * conv.scale) @ conv.weight.flatten(1)
        kernels = kernel * conv.modulation(style)[:, None]  # (B, 12, I)
        offset = (to_pixels @ self.bias)[None, :, None]
        own = torch.baddbmm(offset, kernels, x.flatten(2))
        if pixels is not None:
            own = add_doubled(own, F.pixel_shuffle(pixels, 2))
        return own.unflatten(2, x.shape[2:])


class FewPassMaskConv(MaskConv):
    """Multiplies once for all nine taps, then moves nine narrow features instead of wide ones."""

    def forward(self, *shown: torch.Tensor) -> torch.Tensor:
        """As :meth:`MaskConv.forward`."""
        weight = self.weight[0].flip(1, 2).flatten(1).t() * self.scale  # (9, C)
        parts = weight.split([part.shape[1] for part in shown], dim=1)
        products = (own @ x.flatten(2) for own, x in zip(parts, shown, strict=True))
        taps = functools.reduce(torch.add, products)  # (B, 9, H * W)
        return F.fold(taps, shown[0].shape[2:], 3, padding=1) + self.bias[:, None, None]


class FewPassFaceSampler(FaceSampler):
    """Looks up the face where the mask shows it, straight into the places that samples end in."""

    def forward(
        self, face: FeatureMaps, uv: torch.Tensor, face_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As :meth:`FaceSampler.forward`."""
        is_plain = self.scale != 2 or getattr(self.features, "mode", "") != "bilinear"
        if is_plain or len(face.feature) != 1:
            return super().forward(face, uv, face_mask)
        uv, mask = uv.contiguous(), face_mask[:, 0].contiguous()
        image = inverse_haar_transform(face.rgb_pack)
        return look_up(face.feature, uv, mask), look_up(image, uv, mask)


_FEWER_PASSES: dict[type[nn.Module], type[nn.Module]] = {
    EqualConv2d: FewPassEqualConv2d,
    StyledConv: FewPassStyledConv,
    ToRGB: FewPassToRGB,
    MaskConv: FewPassMaskConv,
    FaceSampler: FewPassFaceSampler,
}
