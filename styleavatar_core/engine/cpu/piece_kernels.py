# SPDX-License-Identifier: Apache-2.0
"""Convolutions by the processor's matrix unit, compiled by numba.

Compiled at the first call and cached on disk; they release the GIL. Numba compiles anew when this
file's text changes; the line below changes with the code's other sources.

The pixels that are multiplied are *pieces*: (S * S, I / SIDE, N, PIECES) uint16. S is 2 where a
convolution halves the resolution, for pixels of even and odd rows and columns, else 1. Rows follow
each other with a pixel of zeros between them, so that a tap is the same step for all pixels.
"""

# Compiled from matrix_code.py piece_code.py vector_code.py: 1fc9faa3

from __future__ import annotations

import numpy as np
from numba import njit

from styleavatar_core.engine.cpu.matrix_code import (
    BLOCK,
    PIECES,
    SIDE,
    add_products,
    begin,
    clear_block,
    end,
    store_block,
    tile_shapes,
)
from styleavatar_core.engine.cpu.piece_code import finish_row, pack_rows, split

_SHAPES = tile_shapes()


@njit(cache=True, nogil=True)
def split_rows(image, first, count, step, columns, pieces):
    """Writes what the taps see from some rows of the grid as pieces; zeros beyond the image.

    Args:
        image: (H, W, I) float32.
        first: First row of the grid.
        count: Rows of it.
        step: S; where it is 1, a pixel of zeros is written before each row.
        columns: Pixels of a row of pieces.
        pieces: Written.
    """
    height, width, channels = image.shape
    before, groups, size = 2 - step, pieces.shape[1], pieces.shape[2] * PIECES
    numbers, flat = image.reshape(-1), pieces.reshape(-1)
    odd = step - 1  # the last bit of places, or none
    top = first * step - before
    for y in range(top, top + count * step + 1 + before):
        line = ((y - top) >> odd) * columns
        for group in range(groups):
            if before:
                to = group * size + line * PIECES
                is_inside = 0 <= y < height
                flat[to : to + (1 if is_inside else columns + 1) * PIECES] = 0
                if not is_inside:
                    continue
            for x in range(width):
                part = (y & odd) * step + (x & odd)
                to = (part * groups + group) * size + (line + (x >> odd) + before) * PIECES
                split(numbers, (y * width + x) * channels + group * SIDE, flat, to)
    for group in range(before * groups):  # what the last pixel of the last row sees
        to = group * size + (count + 2) * columns * PIECES
        flat[to : to + PIECES] = 0


@njit(cache=True, nogil=True)
def pack_kernels(taps, order, first, count, kernels):
    """Puts a convolution's taps where the product reads them.

    Args:
        taps: (O, I, 9) float32, contiguous.
        order: (9,) the tap that is at each place.
        first: First panel of SIDE outputs.
        count: Panels.
        kernels: (O / SIDE, I / SIDE, 9, BLOCK) uint16, written.
    """
    numbers, flat = taps.reshape(-1), kernels.reshape(-1)
    groups, inputs = kernels.shape[1], taps.shape[1]
    rows, step = np.empty(9 * SIDE * SIDE, np.float32), np.uint64(9 * inputs)
    wide = np.uint64(SIDE)  # unsigned: the loop is vectorized then
    for panel in range(first, first + count):
        for group in range(groups):
            begin = (panel * inputs + group) * SIDE * 9
            for k in range(SIDE):
                for place in range(9):
                    at = np.uint64(begin + 9 * k + order[place])
                    to = np.uint64((place * SIDE + k) * SIDE)
                    for output in range(wide):
                        rows[to + output] = numbers[at + output * step]
            for place in range(9):
                block = ((panel * groups + group) * 9 + place) * BLOCK
                for row in range(SIDE // 2):
                    pair = (place * SIDE + 2 * row) * SIDE
                    pack_rows(rows[pair : pair + 2 * SIDE], flat, block + row * SIDE)


@njit(cache=True, nogil=True)
def convolve(pieces, kernels, steps, phases, grid, place, sums, result, bias, noise, slope):
    """Multiplies pixels by taps, adds bias and noise, applies the leaky ReLU.

    Args:
        pieces: Of the image.
        kernels: (O / SIDE, I / SIDE, 9, BLOCK) uint16.
        steps: (9,) from a pixel of the grid to the one that a tap sees, in uint16.
        phases: (F, 4) of each pixel of the result per pixel of the grid: its first tap, the one
            after its last tap, row and column.
        grid: Pixels of a row of the grid, and pixels of a row of the result for each; what is
            beyond the result is dropped.
        place: First row of the grid, rows, first panel of SIDE outputs, panels.
        sums: (SIDE * SIDE,) for one block.
        result: (H, W, O), written.
        bias: (O,).
        noise: (H, W), times its strength; (0, 0) for none.
        slope: Of the leaky ReLU; 1 for none.
    """
    groups, size = pieces.shape[1], pieces.shape[2] * PIECES
    rows, weights, flat = pieces.reshape(-1), kernels.reshape(-1), result.reshape(-1)
    _, count, first, most = place
    targets, column = np.full(SIDE, -1), 0  # of the block of sums
    written = (flat, result.shape[2], bias, noise.reshape(-1), slope)
    begin(_SHAPES)
    for panel in range(first, first + most):
        for low, high, top, left in phases:
            pace = -(-SIDE // (groups * (high - low)))
            for pixel in range(0, count * grid[0], SIDE):
                clear_block()
                row = 0
                for group in range(groups):
                    at = group * size + pixel * PIECES
                    to = (panel * groups + group) * 9 * BLOCK
                    for tap in range(low, high):
                        add_products(rows, at + steps[tap], weights, to + tap * BLOCK)
                        # The unit takes long: the block before is finished meanwhile.
                        following = min(row + pace, SIDE)
                        _finish(sums, row, following, targets, column, written)
                        row = following
                _locate(pixel, place, (top, left), grid, result.shape, targets)
                column = panel * SIDE
                store_block(sums)
    end()
    _finish(sums, 0, SIDE, targets, column, written)


@njit(inline="always")
def _finish(sums, first, end, targets, column, written):
    """Writes some rows of a block of sums to where they belong, from a channel on."""
    flat, channels, bias, grains, slope = written
    for row in range(first, end):
        target = targets[row]
        if target >= 0:
            added = grains[target] if len(grains) else np.float32(0)
            to = target * channels + column
            finish_row(sums, row * SIDE, bias, column, added, slope, flat, to)


@njit(inline="always")
def _locate(pixel, place, corner, grid, shape, targets):
    """Writes where in the result SIDE pixels of the grid are, -1 for what is not computed."""
    height, width, _ = shape
    columns, scale = grid
    y, x = place[0] + pixel // columns, pixel % columns
    for index in range(SIDE):
        v, u = y * scale + corner[0], x * scale + corner[1]
        is_computed = v < height and u < width and y < place[0] + place[1]
        targets[index] = v * width + u if is_computed else -1
        x += 1
        if x == columns:
            x, y = 0, y + 1
