# SPDX-License-Identifier: Apache-2.0
"""Frozen convolutions with fewer products, for torch on a CPU.

A large image is computed in strips of tiles that stay in the caches. Threads take strips, each with
its transform, its matrix products and its transform back, and wait for each other once per layer.
Of a small image each thread computes some channels: kernels are larger than it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from styleavatar_core.engine.cpu.block_code import BLOCK_COLUMNS, BLOCK_ROWS, FEW_ROWS
from styleavatar_core.engine.cpu.filtered_convs import Epilogue, FilteredConv, taps_of
from styleavatar_core.engine.cpu.lazy_kernels import LazyKernels
from styleavatar_core.engine.cpu.product_kernels import multiply
from styleavatar_core.engine.cpu.strips import Strip, plan_strips, share_strips, strip_threads
from styleavatar_core.engine.cpu.tile_forms import TileForm
from styleavatar_core.engine.cpu.tile_kernels import GAP, TRANSFORMS
from styleavatar_core.engine.frozen.layers import FrozenConv
from styleavatar_core.types import FloatArray

# Of a strip, transformed: little where its kernels stay in the caches from one to the next, much
# where each strip reads them from memory.
_STRIP_BYTES = (2**20, 24 * 2**20)
_STAYING_KERNEL_BYTES = 2**23
_PARTS = 8  # of tiles, or channels, that threads share


class _Tiles(NamedTuple):
    """What a convolution computes: images, channels last, and how many tiles they are cut into."""

    image: FloatArray
    result: FloatArray
    end: Epilogue
    number: int
    columns: int


class TiledConv(FilteredConv):
    """A frozen 3x3 convolution, tile by tile.

    Its kernels are transformed when they are first multiplied, by the threads that do so.

    Args:
        conv: The frozen convolution; float32; inputs a multiple of LANES, outputs of BLOCK_COLUMNS.
        form: Of the tiles; one for what the convolution does to the resolution.
    """

    def __init__(self, conv: FrozenConv, form: TileForm) -> None:
        super().__init__(conv)
        self.form, self.kernels = form, LazyKernels(form, taps_of(conv))
        self.order, self.begins = form.points_of_classes()

    def _multiply(self, image: torch.Tensor, result: torch.Tensor, end: Epilogue) -> None:
        rows, columns = (-(-side // self.form.pixels) for side in result.shape[:2])
        floats = self.form.points**2 * (image.shape[2] + result.shape[2])
        strip_bytes = _STRIP_BYTES[self.kernels.values.nbytes > _STAYING_KERNEL_BYTES]
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
        """Returns room for tiles at all pairs of points, from a line of the cache on."""
        return torch.empty(self.form.points**2 * (_padded(count) * channels + GAP)).numpy()


def _padded(count: int) -> int:
    """Returns how many tiles are multiplied for so many."""
    return -(-count // FEW_ROWS) * FEW_ROWS
