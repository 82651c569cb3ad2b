# SPDX-License-Identifier: Apache-2.0
"""Frozen convolutions with fewer products, for torch on a CPU.

A large image is computed in strips of tiles that stay in the caches. Threads take strips, each with
its transform, its matrix products and its transform back, and wait for each other once per layer.
Of a small image each thread computes some channels: kernels are larger than it.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import nn

from styleavatar_core.engine.block_code import BLOCK_COLUMNS, BLOCK_ROWS
from styleavatar_core.engine.blur_kernels import blur
from styleavatar_core.engine.frozen_layers import FrozenConv
from styleavatar_core.engine.lazy_kernels import LazyKernels
from styleavatar_core.engine.product_kernels import multiply
from styleavatar_core.engine.strips import Strip, plan_strips, share_strips, strip_threads
from styleavatar_core.engine.tile_forms import (
    DOUBLING,
    HALVING,
    SAME,
    SAME_LARGE,
    TileForm,
)
from styleavatar_core.engine.tile_kernels import GAP, TRANSFORMS
from styleavatar_core.types import FloatArray

# Of a strip, transformed: as much as the kernels, which each strip reads once, but little enough
# for the caches.
_STRIP_BYTES = (2**20, 24 * 2**20)
_BLUR_BYTES = 2**20
_PARTS = 8  # of tiles, or channels, that threads share
_NO_NOISE = np.empty((0, 0), np.float32)


class _Epilogue(NamedTuple):
    """What follows the products: bias (O,), noise (H, W) or (0, 0), slope of the leaky ReLU."""

    bias: FloatArray
    noise: FloatArray
    slope: np.float32


class _Tiles(NamedTuple):
    """What a convolution computes: images, channels last, and how many tiles they are cut into."""

    image: FloatArray
    result: FloatArray
    end: _Epilogue
    number: int
    columns: int


class TiledConv(nn.Module):
    """A frozen 3x3 convolution in tiles of 4x4 outputs: a quarter of the products.

    Its kernels are transformed when they are first multiplied, by the threads that do so.

    Args:
        conv: The frozen convolution; float32, keeps the resolution; inputs a
            multiple of 8, outputs of 16.
    """

    form: ClassVar[TileForm] = SAME
    scale: ClassVar[float] = 1  # from the input's resolution to the output's

    def __init__(self, conv: FrozenConv) -> None:
        super().__init__()
        self.bias, self.slope = conv.bias, conv.slope
        self.noise_strength = conv.noise_strength
        self.kernels = LazyKernels(self.form, self._taps(conv))
        self.order, self.begins = self.form.points_of_classes()

    def forward(
        self,
        x: torch.Tensor,
        style: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Maps (B, I, H, W) to (B, O, H', W'), channels last."""
        images = self._filtered(x).permute(0, 2, 3, 1).contiguous()
        height, width = (int(self.scale * side) for side in x.shape[2:])
        results = x.new_empty(len(x), height, width, len(self.bias))
        slope = np.float32(1.0 if self.slope is None else self.slope)
        for index, (image, result) in enumerate(zip(images, results, strict=True)):
            added = _NO_NOISE
            if noise is not None and self.noise_strength != 0.0:
                sample = noise[min(index, len(noise) - 1), 0] * self.noise_strength
                added = sample.contiguous().numpy()
            self._convolve(image, result, _Epilogue(self.bias.numpy(), added, slope))
        return results.permute(0, 3, 1, 2)

    @staticmethod
    def _taps(conv: FrozenConv) -> torch.Tensor:
        """Returns the convolution's taps, (O, I, 3, 3)."""
        return conv.weight.detach()

    def _filtered(self, x: torch.Tensor) -> torch.Tensor:
        """Returns what is cut into tiles."""
        return x

    def _convolve(self, image: torch.Tensor, result: torch.Tensor, end: _Epilogue) -> None:
        """Convolves one sample, channels last, into ``result``."""
        rows, columns = (-(-side // self.form.pixels) for side in result.shape[:2])
        floats = self.form.points**2 * (image.shape[2] + result.shape[2])
        least, most_bytes = _STRIP_BYTES
        strip_bytes = min(max(least, 4 * self.kernels.size), most_bytes)
        is_small = rows * columns * 4 * floats <= strip_threads() * strip_bytes
        tiles = _Tiles(image.numpy(), result.numpy(), end, rows * columns, columns)
        if is_small:
            self._share_channels(tiles)
        else:
            self._share_tiles(tiles, plan_strips(tiles.number, 4 * floats, strip_bytes, BLOCK_ROWS))

    def _share_tiles(self, tiles: _Tiles, strips: list[Strip]) -> None:
        """Lets each thread compute some tiles, from their transform to the last one."""
        self.kernels.transform_all()
        most, threads = max(count for _, count in strips), strip_threads()
        gathered, multiplied = (
            [self._planes(most, image.shape[2]) for _ in range(threads)]
            for image in (tiles.image, tiles.result)
        )
        gather, scatter = TRANSFORMS[self.form]
        kernels, panels = self.kernels.values, self.kernels.panels

        def compute(thread: int, first: int, count: int) -> None:
            inputs, products = gathered[thread], multiplied[thread]
            gather(tiles.image, first, count, tiles.columns, inputs, 0)
            padded = _padded(count)
            multiply(inputs, kernels, products, padded, self.order, self.begins, 0, panels)
            place = (first, count, tiles.columns, tiles.result, 0, tiles.result.shape[2])
            scatter(products, *place, *tiles.end)

        share_strips(strips, compute)

    def _share_channels(self, tiles: _Tiles) -> None:
        """Lets each thread compute some channels of all tiles: kernels are read once then."""
        inputs, products = (
            self._planes(tiles.number, image.shape[2]) for image in (tiles.image, tiles.result)
        )
        gather, scatter = TRANSFORMS[self.form]
        whole = (tiles.number, tiles.columns)

        def transform(thread: int, first: int, count: int) -> None:
            gather(tiles.image, first, count, tiles.columns, inputs, first)

        def compute(thread: int, first: int, count: int) -> None:
            kernels = self.kernels.transformed(first, count)
            padded = _padded(tiles.number)
            multiply(inputs, kernels, products, padded, self.order, self.begins, first, count)
            low, high = (BLOCK_COLUMNS * panel for panel in (first, first + count))
            scatter(products, 0, *whole, tiles.result, low, high, *tiles.end)

        share_strips(plan_strips(tiles.number, 1, -(-tiles.number // _PARTS)), transform)
        panels = self.kernels.panels
        share_strips(plan_strips(panels, 1, -(-panels // _PARTS)), compute)
        self.kernels.forget_taps()

    def _planes(self, count: int, channels: int) -> FloatArray:
        """Returns room for tiles at all pairs of points."""
        return np.empty(self.form.points**2 * (_padded(count) * channels + GAP), np.float32)


class LargeTiledConv(TiledConv):
    """The same in tiles of 6x6 outputs: a fifth of the products, of larger kernels."""

    form = SAME_LARGE


class TiledUpConv(TiledConv):
    """A frozen doubling convolution with four filter taps: 169 products where 324 would be needed.

    Args:
        conv: The frozen convolution; float32, doubles the resolution and filters.
    """

    form = DOUBLING
    scale = 2

    def __init__(self, conv: FrozenConv) -> None:
        super().__init__(conv)
        self.fir_taps = _fir_taps(conv, 2.0)

    @staticmethod
    def _taps(conv: FrozenConv) -> torch.Tensor:
        return conv.weight.detach().transpose(0, 1)

    def _convolve(self, image: torch.Tensor, result: torch.Tensor, end: _Epilogue) -> None:
        """Convolves one sample, channels last, and filters it into ``result``."""
        height, width, channels = result.shape
        wide = result.new_empty(height + 1, width + 1, channels)
        plain = _Epilogue(np.zeros_like(end.bias), _NO_NOISE, np.float32(1))
        super()._convolve(image, wide, plain)
        _blur(wide, result, self.fir_taps, end)


class TiledDownConv(TiledConv):
    """A frozen halving convolution with filter taps: 81 products where 144 would be needed.

    Args:
        conv: The frozen convolution; float32, filters and halves the resolution.
    """

    form = HALVING
    scale = 0.5

    def __init__(self, conv: FrozenConv) -> None:
        super().__init__(conv)
        self.fir_taps = _fir_taps(conv, 1.0)

    def _filtered(self, x: torch.Tensor) -> torch.Tensor:
        images = x.permute(0, 2, 3, 1).contiguous()
        count, height, width, channels = images.shape
        results = x.new_empty(count, height + 1, width + 1, channels)
        plain = _Epilogue(np.zeros(channels, np.float32), _NO_NOISE, np.float32(1))
        for image, result in zip(images, results, strict=True):
            _blur(image, result, self.fir_taps, plain)
        return results.permute(0, 3, 1, 2)


def _fir_taps(conv: FrozenConv, gain: float) -> FloatArray:
    """Returns a convolution's filter along one axis; its taps add up to ``gain``."""
    taps = np.array(conv.fir_taps, np.float32)
    return gain * taps / taps.sum()


def _blur(image: torch.Tensor, result: torch.Tensor, taps: FloatArray, end: _Epilogue) -> None:
    """Filters one sample, channels last, into ``result``."""
    height, width, channels = result.shape
    lines = result.new_empty(strip_threads(), (width + 3) * channels).numpy()
    source, output = image.numpy(), result.numpy()

    def compute(thread: int, first: int, count: int) -> None:
        blur(source, first, count, taps, lines[thread], output, *end)

    share_strips(plan_strips(height, 4 * width * channels, _BLUR_BYTES), compute)


def _padded(count: int) -> int:
    """Returns how many tiles are multiplied for so many."""
    return -(-count // BLOCK_ROWS) * BLOCK_ROWS
