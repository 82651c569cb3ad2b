# SPDX-License-Identifier: Apache-2.0
"""Frozen convolutions for processors with a matrix unit, for torch on a CPU.

The unit computes products three times as fast as vectors do: the transforms that save products
(``tiled_convs.py``) would take longer than what they save.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from styleavatar_core.engine.filtered_convs import Epilogue, FilteredConv, taps_of
from styleavatar_core.engine.frozen_layers import FrozenConv
from styleavatar_core.engine.matrix_code import BLOCK, PIECES, SIDE
from styleavatar_core.engine.piece_kernels import convolve, pack_kernels, split_rows
from styleavatar_core.engine.strips import Strip, plan_strips, share_strips, strip_threads
from styleavatar_core.types import FloatArray

Pieces = npt.NDArray[np.uint16]

_STRIP_BYTES = 2**20  # of pieces that a thread multiplies by all kernels
_SPLIT_BYTES = 2**20
_PARTS = 8  # at least, that threads share: of pixels, or of channels too


class _Grid(NamedTuple):
    """Where the pixels of an image lie among its pieces.

    Attributes:
        rows: Of the grid whose pixels are multiplied.
        columns: Likewise; the last one is for nothing, but for a doubling convolution.
        step: Pixels of the image from one of the grid to the next.
    """

    rows: int
    columns: int
    step: int


class DirectConv(FilteredConv):
    """A frozen 3x3 convolution, all products of which are computed.

    Args:
        conv: The frozen convolution; float32; inputs and outputs multiples of SIDE.
    """

    def __init__(self, conv: FrozenConv) -> None:
        super().__init__(conv)
        taps = taps_of(conv)
        outputs, inputs = taps.shape[:2]
        self.order, self.phases = _DOUBLING if conv.mode == "up" else _PLAIN
        self.kernels = _empty(outputs // SIDE, inputs // SIDE, 9, BLOCK)
        flat = taps.reshape(outputs, inputs, 9).numpy()

        def compute(thread: int, first: int, count: int) -> None:
            pack_kernels(flat, self.order, first, count, self.kernels)

        share_strips(plan_strips(outputs // SIDE, 1, 1), compute)

    def _multiply(self, image: torch.Tensor, result: torch.Tensor, end: Epilogue) -> None:
        scale = 2 if self.mode == "up" else 1
        rows, columns = (-(-side // scale) for side in result.shape[:2])
        grid = _Grid(rows, columns if scale == 2 else columns + 1, 2 if self.mode == "down" else 1)
        pieces = _pieces_of(image.numpy(), grid)
        shared = (pieces, self.kernels, self._steps(grid, pieces), self.phases)
        layout, output = (grid.columns, scale), result.numpy()
        sums = torch.empty(strip_threads(), SIDE * SIDE).numpy()
        parts = self._parts(grid.rows * grid.columns, pieces[:, :, 0].nbytes)

        def compute(thread: int, first: int, count: int) -> None:
            for pixels, panels in parts[first : first + count]:
                place = (*pixels, *panels)
                convolve(*shared, layout, place, sums[thread], output, *end)

        share_strips(plan_strips(len(parts), 1, 1), compute)

    def _parts(self, pixels: int, bytes_per_pixel: int) -> list[tuple[Strip, Strip]]:
        """Returns pixels of the grid, and panels of kernels, that a thread computes at a time."""
        strips, panels = plan_strips(pixels, bytes_per_pixel, _STRIP_BYTES, SIDE), len(self.kernels)
        most = -(
            -len(strips) * panels // _PARTS
        )  # of a small image some channels: all threads work
        return list(itertools.product(strips, plan_strips(panels, 1, most)))

    def _steps(self, grid: _Grid, pieces: Pieces) -> npt.NDArray[np.int64]:
        """Returns how far what each tap sees is from a pixel of the grid."""
        y, x = np.divmod(self.order, 3)
        if self.mode == "up":
            y, x = (np.array([1, 1, 0])[axis] for axis in (y, x))
        part = y % grid.step * grid.step + x % grid.step
        pixel = y // grid.step * grid.columns + x // grid.step
        return part * pieces[0].size + pixel * PIECES


def _phases(taps: list[list[int]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns taps (9,) sorted by pixel of the result, and for each pixel which they are."""
    scale = len(taps)
    order, phases = [], []
    for top, left in itertools.product(range(scale), repeat=2):
        first = len(order)
        order += [3 * y + x for y in taps[top] for x in taps[left]]
        phases.append((first, len(order), top, left))
    return np.array(order), np.array(phases)


_PLAIN = _phases([[0, 1, 2]])
_DOUBLING = _phases([[0, 2], [1]])  # even pixels see two, odd ones see one, along an axis


def _pieces_of(image: FloatArray, grid: _Grid) -> Pieces:
    """Splits an image into pieces, on all threads."""
    height, channels = len(image), image.shape[2]
    rows, columns, step = grid
    # As far as the last block of pixels sees, of which what is beyond the grid is dropped.
    count = -(-rows * columns // SIDE) * SIDE + 2 * columns + 2
    pieces = _empty(step * step, channels // SIDE, count, PIECES)
    if step == 1:  # zeros before the first row and after the last one
        pieces[:, :, :columns] = 0
        pieces[:, :, (height + 1) * columns : (height + 2) * columns + 1] = 0

    def compute(thread: int, first: int, rows: int) -> None:
        split_rows(image, first, rows, step, columns, pieces)

    share_strips(plan_strips(height, image[0].nbytes, _SPLIT_BYTES), compute)
    return pieces


def _empty(*shape: int) -> Pieces:
    """Returns room for pieces, from a line of the cache on: as torch lays out all its tensors."""
    return torch.empty(shape, dtype=torch.int16).numpy().view(np.uint16)
