# SPDX-License-Identifier: Apache-2.0
"""The composition's parts with fixed maps and a fixed window (paper, Sec. 3.2)."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import nn

from styleavatar_core.engine.frozen.layers import FrozenConv, FrozenPointwise
from styleavatar_core.networks.feature_generator import FeatureMaps
from styleavatar_core.networks.style_unet import StyleUNet

_HALO = 2  # texels of the level below that up-convolution, filter and convolution look at


class MiddleBlock(nn.Module):
    """A level of a decoder, computed around the middle only.

    Args:
        block: The level.
        size: Side of what it gets from the level below, in texels of that level.

    Attributes:
        is_whole: Whether the whole level is computed, for a window that is elsewhere.
    """

    def __init__(self, block: nn.Module, size: int) -> None:
        super().__init__()
        self.block = block
        self.size = size
        self.is_whole = False

    def forward(
        self,
        x: torch.Tensor,
        style: torch.Tensor,
        pixels: torch.Tensor | None,
        **more: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes and gives what the level does, of smaller sides; ``more`` is skip and noise."""
        if not self.is_whole:
            x = _middle(x, self.size)
        so_far = None if pixels is None else _middle(pixels, x.shape[-1])
        cut = {
            name: None if part is None else _middle(part, 2 * x.shape[-1])
            for name, part in more.items()
        }
        result: tuple[torch.Tensor, torch.Tensor] = self.block(x, style, so_far, **cut)
        return result


def _middle(x: torch.Tensor, size: int) -> torch.Tensor:
    """Cuts the middle square of a side out of (B, C, H, W); all of it if it is smaller."""
    start = max(0, (x.shape[-1] - size) // 2)
    rows = slice(start, x.shape[-1] - start)
    return x[..., rows, rows]


def compute_around_window(network: StyleUNet, window_size: int, offset: int) -> None:
    """Makes the first StyleUNet compute each level around a fixed window only, in place.

    It then gives a smaller canvas with the same middle, from which the window is cut as from the
    whole one.

    Args:
        network: The StyleUNet, its layers frozen.
        window_size: Side of the window, in texels of the canvas.
        offset: Largest distance of the window's middle from the canvas's, texels.
    """
    config = network.config
    size = config.output_size
    extent = window_size // 2 + offset + 1  # from the middle; the window's last step may be longer
    for index in reversed(range(len(network.decoder))):
        size //= 2
        extent = -(-extent // 2) + _HALO
        network.decoder[index] = MiddleBlock(network.decoder[index], 2 * extent)
        if size in config.skip_sizes and not config.has_early_skips:
            break  # what is joined there comes whole


def enlarge(mask: torch.Tensor, factor: int) -> torch.Tensor:
    """Enlarges a mask bilinearly, repeating its border.

    Twice its side is a convolution to four channels: runtimes for CPUs do that much faster.

    Args:
        mask: (B, 1, H, W) float.
        factor: How many times its side.

    Returns:
        (B, 1, factor * H, factor * W).
    """
    if factor != 2:
        return F.interpolate(mask, scale_factor=factor, mode="bilinear", align_corners=False)
    kernel, present = _doubling(int(mask.shape[2]), int(mask.shape[3]), mask.dtype, mask.device)
    return F.pixel_shuffle(F.conv2d(mask, kernel, padding=1) / present, 2)


@functools.lru_cache(maxsize=16)
def _doubling(
    height: int, width: int, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the kernel (4, 1, 3, 3) that doubles a mask, and its sum (1, 4, H, W) on the mask.

    Beyond the border is zero: divided by the sum, what is missing is the border's own value again.
    """
    with torch.inference_mode(False):
        row = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.75, 0.25]])
        kernel = torch.einsum("iy,jx->ijyx", row, row).reshape(4, 1, 3, 3)
        present = F.conv2d(torch.ones(1, 1, height, width), kernel, padding=1)
        return kernel.to(device, dtype), present.to(device, dtype)


class FrozenBackground(nn.Module):
    """What a fixed window shows of the background.

    Args:
        feature: (1, C, Fw, Fw).
        pack: (1, 12, Fw, Fw).
    """

    feature: torch.Tensor
    pack: torch.Tensor

    def __init__(self, feature: torch.Tensor, pack: torch.Tensor) -> None:
        super().__init__()
        for name, part in (("feature", feature), ("pack", pack)):
            # As torch takes it, so that it is not copied once more.
            kept = part.detach().clone(memory_format=torch.channels_last)
            self.register_buffer(name, kept)

    def forward(self, maps: FeatureMaps, starts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns feature and pack, whatever is asked for."""
        return self.feature, self.pack


class FrozenNarrowConv(nn.Module):
    """Convolution to one channel: a 1x1 convolution gives each tap's part, a second adds them.

    Runtimes compute eight channels or more at a time: one alone costs as much.

    Args:
        conv: The frozen convolution; one channel, no activation, keeps the resolution.
        constant: (1, C, H, W) of its last input channels, always the same; or None.
    """

    taps: torch.Tensor

    def __init__(self, conv: FrozenConv, constant: torch.Tensor | None = None) -> None:
        super().__init__()
        weight, side = conv.weight.detach(), conv.weight.shape[-1]
        self.rest: torch.Tensor | nn.Parameter = conv.bias
        parts = weight[0].flatten(1).t().reshape(side * side, -1, 1, 1)
        taps = torch.eye(side * side).to(parts).reshape(1, side * side, side, side)
        self.register_buffer("taps", taps)
        if constant is not None:
            known = parts[:, -constant.shape[1] :]
            parts = parts[:, : -constant.shape[1]].contiguous()
            rest = F.conv2d(F.conv2d(constant, known), taps, conv.bias, padding=side // 2)
            self.rest = nn.Parameter(rest.detach(), requires_grad=False)
        self.parts = FrozenPointwise(parts, None)

    def forward(self, x: torch.Tensor, constant: torch.Tensor | None = None) -> torch.Tensor:
        """Maps (B, I, H, W) to (B, 1, H, W)."""
        side = self.taps.shape[-1]
        return F.conv2d(self.parts(x), self.taps, padding=side // 2) + self.rest


class FrozenSampler(nn.Module):
    """Bilinear sampling of a constant map, as two table look-ups per sample.

    A row of the table holds a texel and the one below it, so that a sample is two gathers and two
    linear interpolations: several times faster than grid sampling in runtimes for CPUs.

    Args:
        texture: (1, C, F, F) map in UV space.
    """

    def __init__(self, texture: torch.Tensor) -> None:
        super().__init__()
        self.size = texture.shape[-1]
        self.channels = texture.shape[1]
        pixels = texture[0].detach().permute(1, 2, 0)  # (F, F, C)
        table = torch.cat([pixels[:-1], pixels[1:]], dim=2).flatten(0, 1)  # ((F - 1) * F, 2C)
        self.table = nn.Parameter(table, requires_grad=False)

    def forward(self, texture: torch.Tensor, uv: torch.Tensor) -> torch.Tensor:
        """Samples the constant map at uv (B, 2, H, W): (B, C, H, W)."""
        position = (uv * self.size - 0.5).clamp(0.0, self.size - 1.0)
        corner = position.floor().clamp(max=self.size - 2.0)
        weight = (position - corner)[..., None].to(self.table.dtype)  # (B, 2, H, W, 1)
        row = (corner[:, 1] * self.size + corner[:, 0]).long()  # exact: far below 2^24
        left, right = F.embedding(row, self.table), F.embedding(row + 1, self.table)
        column = left + weight[:, 0] * (right - left)  # (B, H, W, 2C)
        top, bottom = column[..., : self.channels], column[..., self.channels :]
        values = top + weight[:, 1] * (bottom - top)
        return values.permute(0, 3, 1, 2)


class SampledFace(nn.Module):
    """Stands where the face is sampled, for maps that hold the samples already."""

    def forward(
        self, face: FeatureMaps, uv: torch.Tensor, face_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the feature and the pixels, both (B, ..., Fw, Fw), as they came."""
        return face.feature, face.rgb_pack


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
