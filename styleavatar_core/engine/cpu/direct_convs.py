# SPDX-License-Identifier: Apache-2.0
"""Frozen convolutions for processors with a matrix unit, for torch on a CPU.

The unit computes products three times as fast as vectors do: the transforms that save products
(``tiled_convs.py``) would take longer than what they save.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import torch

from styleavatar_core.engine.cpu.filtered_convs import Epilogue, FilteredConv, taps_of
from styleavatar_core.engine.cpu.matrix_code import BLOCK, PIECES, SIDE
from styleavatar_core.engine.cpu.piece_kernels import convolve, pack_kernels, split_rows
from styleavatar_core.engine.cpu.strips import Strip, plan_strips, share_strips, strip_threads
from styleavatar_core.engine.frozen.layers import FrozenConv

Pieces = npt.NDArray[np.uint16]

_STRIP_BYTES = 2**20  # of pieces that a thread multiplies by all kernels
_PARTS = 8  # at least, that threads share: of pixels, or of channels too


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
        self.kernels = room_for_pieces(outputs // SIDE, inputs // SIDE, 9, BLOCK)
        flat = taps.reshape(outputs, inputs, 9).contiguous().numpy()

        def compute(thread: int, first: int, count: int) -> None:
            pack_kernels(flat, self.order, first, count, self.kernels)

        share_strips(plan_strips(outputs // SIDE, 1, 1), compute)

    def _multiply(self, image: torch.Tensor, result: torch.Tensor, end: Epilogue) -> None:
        scale, step = (2 if self.mode == mode else 1 for mode in ("up", "down"))
        rows, columns = (-(-side // scale) for side in result.shape[:2])
        columns += 2 - scale  # the zeros between rows; a doubling convolution computes them
        bytes_per_row = 4 * columns * step**2 * image.shape[2]
        strips = plan_strips(rows, bytes_per_row, _STRIP_BYTES)
        parts = self._parts(strips)
        # As far as the last block of pixels sees, of which what is beyond the strip is dropped.
        count = max(count for _, count in strips) * columns + SIDE + 2 * columns + 2
        groups, threads = image.shape[2] // SIDE, strip_threads()
        pieces = [room_for_pieces(step**2, groups, count, PIECES) for _ in range(threads)]
        steps, grid = self.tap_steps(columns, step, pieces[0]), (columns, scale)
        shared = (self.kernels, steps, self.phases, grid)
        sums, held = torch.empty(threads, SIDE * SIDE).numpy(), [-1] * threads
        source, output = image.numpy(), result.numpy()

        def compute(thread: int, first: int, count: int) -> None:
            for rows, panels in parts[first : first + count]:
                if held[thread] != rows[0]:
                    split_rows(source, *rows, step, columns, pieces[thread])
                    held[thread] = rows[0]
                place = (*rows, *panels)
                convolve(pieces[thread], *shared, place, sums[thread], output, *end)

        share_strips(plan_strips(len(parts), 1, 1), compute)

    def _parts(self, strips: list[Strip]) -> list[tuple[Strip, Strip]]:
        """Returns rows of the grid, and panels of kernels, that a thread computes at a time.

        All panels, but of an image of few strips: all threads are to work.
        """
        panels = len(self.kernels)
        most = -(-len(strips) * panels // _PARTS)
        return list(itertools.product(strips, plan_strips(panels, 1, most)))

    def tap_steps(self, columns: int, step: int, pieces: Pieces) -> npt.NDArray[np.int64]:
        """Returns how far what each tap sees is from a pixel of the grid."""
        y, x = np.divmod(self.order, 3)
        if self.mode == "up":
            y, x = (np.array([1, 1, 0])[axis] for axis in (y, x))
        part = y % step * step + x % step
        pixel = y // step * columns + x // step
        return part * pieces[0].size + pixel * PIECES


def _phases(taps: list[list[int]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns taps (9,) sorted by pixel of the result, and for each pixel which they are."""
    scale = len(taps)
    order: list[int] = []
    phases: list[tuple[int, int, int, int]] = []
    for top, left in itertools.product(range(scale), repeat=2):
        first = len(order)
        order += [3 * y + x for y in taps[top] for x in taps[left]]
        phases.append((first, len(order), top, left))
    return np.array(order), np.array(phases)


_PLAIN = _phases([[0, 1, 2]])
_DOUBLING = _phases([[0, 2], [1]])  # even pixels see two, odd ones see one, along an axis


def room_for_pieces(*shape: int) -> Pieces:
    """Returns room for pieces, from a line of the cache on: as torch lays out all its tensors."""
    return torch.empty(shape, dtype=torch.int16).numpy().view(np.uint16)
