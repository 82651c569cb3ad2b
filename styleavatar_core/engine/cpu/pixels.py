# SPDX-License-Identifier: Apache-2.0
"""Images kept as pixels of blocks (``ops/to_rgb.py``), as threads on a CPU share work on them."""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from torch import nn

from styleavatar_core.engine.cpu.strips import plan_strips, share_strips
from styleavatar_core.engine.frozen.freeze import MaskBytes
from styleavatar_core.engine.frozen.layers import FrozenToRGB
from styleavatar_core.types import ByteArray, FloatArray

_LEAST_FLOATS = 2**20  # of an image; below, torch is fast enough
_STRIP_BYTES = 2**20


class PixelsToImage(nn.Module):
    """Puts the four pixels in the channels of one beside each other: ``pixel_shuffle`` by two."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Maps (B, 4C, H, W) to (B, C, 2H, 2W)."""
        if pixels.numel() < _LEAST_FLOATS:
            return F.pixel_shuffle(pixels, 2)
        count, channels, height, width = pixels.shape
        source = pixels.permute(0, 2, 3, 1).contiguous().view(count * height, width, channels)
        image = pixels.new_empty(count, 2 * height, 2 * width, channels // 4)
        rows, target = source.numpy(), image.view(count * height * 2, -1).numpy()

        def compute(thread: int, first: int, rows_count: int) -> None:
            for row in range(2 * first, 2 * (first + rows_count)):
                _copy_row(rows, row, target[row])

        share_strips(plan_strips(len(rows), 4 * width * channels, _STRIP_BYTES), compute)
        return image.permute(0, 3, 1, 2)


class SharedToRGB(nn.Module):
    """A frozen ToRGB that adds the doubled image in one pass, without making it first.

    Args:
        layer: The frozen ToRGB.
    """

    def __init__(self, layer: FrozenToRGB) -> None:
        super().__init__()
        self.pixels = layer.pixels

    def forward(
        self, x: torch.Tensor, style: torch.Tensor | None, pixels: torch.Tensor | None
    ) -> torch.Tensor:
        """Maps x (B, C, H, W) and the pixels so far (B, 12, H / 2, W / 2) to (B, 12, H, W)."""
        own: torch.Tensor = self.pixels(x)
        if pixels is None:
            return own
        results = own.permute(0, 2, 3, 1).contiguous()
        for source, result in zip(pixels.permute(0, 2, 3, 1).contiguous(), results, strict=True):
            add_doubled_image(source, result)
        return results.permute(0, 3, 1, 2)


def add_doubled_image(source: torch.Tensor, result: torch.Tensor) -> None:
    """Adds one sample (H, W, 12), doubled, to ``result`` (2H, 2W, 12)."""
    height, width, channels = result.shape
    small, large = source.numpy(), result.numpy()

    def compute(thread: int, first: int, count: int) -> None:
        _add_doubled(small, first, count, large)

    share_strips(plan_strips(height, 4 * width * channels, _STRIP_BYTES), compute)


class SharedHalving(nn.Module):
    """Halves images with the taps [1, 3, 3, 1], zero beyond their border."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Maps (B, C, 2H, 2W) to (B, C, H, W)."""
        images = image.permute(0, 2, 3, 1).contiguous()
        count, height, width, channels = images.shape
        results = image.new_empty(count, height // 2, width // 2, channels)
        for source, result in zip(images.numpy(), results.numpy(), strict=True):
            strips = plan_strips(len(result), source[:2].nbytes, _STRIP_BYTES)
            share_strips(strips, functools.partial(_halve, source, result))
        return results.permute(0, 3, 1, 2)


class SharedBytes(nn.Module):
    """Puts the four pixels in the channels of one beside each other, as bytes."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Maps (B, 4C, H, W) float32, of images in [-1, 1], to (B, 2H, 2W, C) uint8."""
        values = pixels.permute(0, 2, 3, 1).contiguous().flatten(0, 1)
        count, channels, height, width = pixels.shape
        result = torch.empty(count, 2 * height, 2 * width, channels // 4, dtype=torch.uint8)
        source, target = values.numpy(), result.flatten(0, 1).numpy()
        strips = plan_strips(len(source), source[0].nbytes, _STRIP_BYTES)
        share_strips(strips, functools.partial(_round, source, target))
        return result


class SharedMaskBytes(MaskBytes):
    """Enlarges masks and turns them into bytes in one pass."""

    def forward(self, mask: torch.Tensor) -> torch.Tensor:
        """As :meth:`MaskBytes.forward`."""
        count, _, height, width = mask.shape
        result = torch.empty(count, self.factor * height, self.factor * width, dtype=torch.uint8)
        for source, target in zip(mask[:, 0].contiguous().numpy(), result.numpy(), strict=True):
            _share_enlarging(source, target)
        return result


def _share_enlarging(mask: FloatArray, result: ByteArray) -> None:
    """Enlarges one mask on all threads."""

    def compute(thread: int, first: int, count: int) -> None:
        _enlarge(mask, first, count, result)

    share_strips(plan_strips(len(result), 4 * result.shape[1], _STRIP_BYTES), compute)


@njit(cache=True, nogil=True)
def _enlarge(mask, first, count, result):  # noqa: ANN001, ANN202
    """Enlarges (H, W) bilinearly, repeating its border, to some rows of (F * H, F * W) bytes."""
    height, width = mask.shape
    factor = result.shape[0] // height
    half, steps = np.float32(0.5), np.float32(255)
    line = np.empty(width + 2, np.float32)
    for y in range(first, first + count):
        place = (y + half) / factor - half
        top = int(np.floor(place))
        share = np.float32(place - top)
        above, below = max(top, 0), min(top + 1, height - 1)
        for x in range(width):
            line[x + 1] = mask[above, x] + (mask[below, x] - mask[above, x]) * share
        line[0], line[width + 1] = line[1], line[width]
        for x in range(width * factor):
            where = (x + half) / factor + half
            left = int(where)
            value = line[left] + (line[left + 1] - line[left]) * np.float32(where - left)
            result[y, x] = np.uint8(np.rint(value * steps))


@njit(cache=True, nogil=True)
def _copy_row(pixels, row, line):  # noqa: ANN001, ANN202
    """Copies one row of the image whose pixels are (H, W, 4C): (2W * C,)."""
    _, width, channels = pixels.shape
    colours = channels // 4
    for x in range(width):
        for side in range(2):
            to = (2 * x + side) * colours
            for colour in range(colours):
                line[to + colour] = pixels[row // 2, x, 4 * colour + 2 * (row % 2) + side]


@njit(cache=True, nogil=True)
def _add_doubled(pixels, first, count, result):  # noqa: ANN001, ANN202
    """Adds an image, doubled by the taps [1, 3, 3, 1], zero beyond its border.

    Args:
        pixels: (H, W, 4C) of the image.
        first: First row of the result.
        count: Rows.
        result: (2H, 2W, 4C), the pixels of the doubled image are added to it.
    """
    height, width, channels = result.shape
    colours = channels // 4
    lines = np.zeros((3, (width + 2) * colours), np.float32)  # rows before, at and after
    inner = lines[:, colours:-colours]
    heavy, light = np.float32(0.75), np.float32(0.25)
    for row in range(first - 1, first + 1):
        if row >= 0:
            _copy_row(pixels, row, inner[row % 3])
    for y in range(first, first + count):
        if y + 1 < height:
            _copy_row(pixels, y + 1, inner[(y + 1) % 3])
        else:
            inner[(y + 1) % 3] = 0
        middle = lines[y % 3]
        for side in range(2):
            other = lines[(y - 1 + 2 * side) % 3]
            line = heavy * middle + light * other
            for x in range(width):
                for colour in range(colours):
                    at, to = x * colours + colour, 4 * colour + 2 * side
                    now = heavy * line[at + colours]
                    result[y, x, to] += now + light * line[at]
                    result[y, x, to + 1] += now + light * line[at + 2 * colours]


@njit(cache=True, nogil=True)
def _halve(image, result, thread, first, count):  # noqa: ANN001, ANN202
    """Halves (2H, 2W, C) to some rows of (H, W, C)."""
    height, width, channels = image.shape
    line = np.zeros((width + 2) * channels, np.float32)  # a row halved, zero beyond the border
    inner = line[channels:-channels]
    heavy, light = np.float32(0.375), np.float32(0.125)
    for y in range(first, first + count):
        inner[:] = heavy * (image[2 * y].ravel() + image[2 * y + 1].ravel())
        if y > 0:
            inner += light * image[2 * y - 1].ravel()
        if 2 * y + 2 < height:
            inner += light * image[2 * y + 2].ravel()
        for x in range(result.shape[1]):
            for k in range(channels):
                at = 2 * x * channels + k
                outer = line[at] + line[at + 3 * channels]
                middle = line[at + channels] + line[at + 2 * channels]
                result[y, x, k] = light * outer + heavy * middle


@njit(cache=True, nogil=True)
def _round(pixels, image, thread, first, count):  # noqa: ANN001, ANN202
    """Maps some rows of pixels (H, W, 4C), in [-1, 1], to the nearest bytes of (2H, 2W, C)."""
    _, width, channels = pixels.shape
    colours = channels // 4
    half, steps = np.float32(0.5), np.float32(255)
    line = np.empty(width * channels, np.uint8)
    for y in range(first, first + count):
        values = pixels[y].reshape(-1)
        for k in range(len(line)):
            value = np.rint((values[k] * half + half) * steps)
            line[k] = np.uint8(min(max(value, np.float32(0)), steps))
        for row in range(2):
            for x in range(width):
                for side in range(2):
                    for colour in range(colours):
                        at = x * channels + 4 * colour + 2 * row + side
                        image[2 * y + row, 2 * x + side, colour] = line[at]
