# SPDX-License-Identifier: Apache-2.0
"""The loops around the matrix products of :mod:`styleavatar_core.engine.tiled_convs`, compiled.

Compiled by numba at the first call and cached on disk; they release the GIL. Arrays are float32 and
C-contiguous, channels last. A *combination* is a table of up to five terms per result: ``index``
(R, 5) says of what, ``weight`` (R, 5) how much; what is left over has weight 0.
"""

from __future__ import annotations

import numpy as np
from numba import njit

TERMS = 5  # of a combination


@njit(cache=True, nogil=True, fastmath=True)
def _combine(target, to, source, starts, weights, count):  # noqa: ANN001, ANN202
    """Writes ``count`` values of a combination; ``starts`` are its terms' places in ``source``."""
    # Unsigned places: numba then leaves out the test for negative ones, and the loop is vectorized.
    a, b, c = np.uint64(starts[0]), np.uint64(starts[1]), np.uint64(starts[2])
    d, e, o = np.uint64(starts[3]), np.uint64(starts[4]), np.uint64(to)
    v, w, x, y, z = weights[0], weights[1], weights[2], weights[3], weights[4]
    if w == 0 and x == 0 and y == 0 and z == 0:
        for k in range(np.uint64(count)):
            target[o + k] = v * source[a + k]
        return
    for k in range(np.uint64(count)):
        target[o + k] = (
            v * source[a + k]
            + w * source[b + k]
            + x * source[c + k]
            + y * source[d + k]
            + z * source[e + k]
        )


@njit(cache=True, nogil=True, fastmath=True)
def _finish(target, to, source, starts, weights, bias, added, slope):  # noqa: ANN001, ANN202
    """As ``_combine`` for one pixel, plus bias (O,) and a number, then leaky ReLU."""
    a, b, c = np.uint64(starts[0]), np.uint64(starts[1]), np.uint64(starts[2])
    d, e, o = np.uint64(starts[3]), np.uint64(starts[4]), np.uint64(to)
    v, w, x, y, z = weights[0], weights[1], weights[2], weights[3], weights[4]
    for k in range(np.uint64(len(bias))):
        value = (
            v * source[a + k]
            + w * source[b + k]
            + x * source[c + k]
            + y * source[d + k]
            + z * source[e + k]
        ) + (bias[k] + added)
        target[o + k] = max(value, slope * value)


@njit(cache=True, nogil=True, fastmath=True)
def gather(image, first, columns, step, before, index, weight, slot, lines, tiles):  # noqa: ANN001, ANN201
    """Transforms the tiles of some tile rows; zero beyond the image's border.

    Args:
        image: (H, W, C).
        first: First row of tiles.
        columns: Tiles per row.
        step: Distance of tiles, pixels.
        before: Pixels of a tile to the left of (and above) its place.
        index: (P, 5) pixels of a tile, per point of the transform.
        weight: (P, 5).
        slot: (P, P) place in ``tiles`` of the points of y and x.
        lines: (P, span * C) for the transform along y; span is what ``columns`` tiles cover.
        tiles: (P * P, rows * columns, C), written.
    """
    height, width, channels = image.shape
    pixels, flat_lines, flat_tiles = image.reshape(-1), lines.reshape(-1), tiles.reshape(-1)
    points, line = lines.shape
    count = tiles.shape[1]
    starts, weights = np.empty(TERMS, np.int64), np.empty(TERMS, np.float32)
    shown = min(width, line // channels - before) * channels
    for p in range(points):
        lines[p, : before * channels] = 0
        lines[p, before * channels + shown :] = 0
    for row in range(count // columns):
        top = (first + row) * step - before
        for p in range(points):
            for term in range(TERMS):
                y = top + index[p, term]
                is_inside = 0 <= y < height
                starts[term] = y * width * channels if is_inside else 0
                weights[term] = weight[p, term] if is_inside else 0
            _combine(flat_lines, p * line + before * channels, pixels, starts, weights, shown)
        for p in range(points):
            for q in range(points):
                to = (slot[p, q] * count + row * columns) * channels
                for column in range(columns):
                    for term in range(TERMS):
                        starts[term] = p * line + (column * step + index[q, term]) * channels
                    _combine(flat_tiles, to, flat_lines, starts, weight[q], channels)
                    to += channels


@njit(cache=True, nogil=True, fastmath=True)
def scatter(products, first, columns, index, weight, slot, part, result, bias, noise, slope):  # noqa: ANN001, ANN201
    """Transforms products back into pixels, adds bias and noise, applies the leaky ReLU.

    Args:
        products: (P * P, rows * columns, O).
        first: First row of tiles.
        columns: Tiles per row.
        index: (M, 5) points, per pixel of a tile.
        weight: (M, 5).
        slot: (P, P) place in ``products`` of the points of y and x.
        part: (P, M * O) for the transform along x.
        result: (H, W, O), written; what tiles have beyond it is dropped.
        bias: (O,).
        noise: (H, W), times its strength; (0, 0) for none.
        slope: Of the leaky ReLU; 1 for none.
    """
    height, width, channels = result.shape
    flat, flat_part, pixels = products.reshape(-1), part.reshape(-1), result.reshape(-1)
    count, size, points = products.shape[1], len(index), len(slot)
    starts = np.empty(TERMS, np.int64)
    for tile in range(count):
        top, left = (first + tile // columns) * size, tile % columns * size
        for p in range(points):
            for x in range(min(size, width - left)):
                for term in range(TERMS):
                    starts[term] = (slot[p, index[x, term]] * count + tile) * channels
                _combine(flat_part, (p * size + x) * channels, flat, starts, weight[x], channels)
        for y in range(min(size, height - top)):
            for x in range(min(size, width - left)):
                for term in range(TERMS):
                    starts[term] = (index[y, term] * size + x) * channels
                to = (top + y) * width + left + x
                added = noise[top + y, left + x] if len(noise) else np.float32(0)
                _finish(pixels, to * channels, flat_part, starts, weight[y], bias, added, slope)


@njit(cache=True, nogil=True, fastmath=True)
def blur(image, first, count, taps, lines, result, bias, noise, slope):  # noqa: ANN001, ANN201
    """Filters some rows with four taps along both axes, then as :func:`scatter`.

    Args:
        image: (H + 1, W + 1, O), zero beyond its border.
        first: First row of the result.
        count: Rows.
        taps: (5,), the last one 0.
        lines: ((W + 3) * O,) for the filter along y.
        result: (H, W, O), written.
        bias: (O,).
        noise: (H, W), times its strength; (0, 0) for none.
        slope: Of the leaky ReLU; 1 for none.
    """
    height, width, channels = image.shape
    source, pixels = image.reshape(-1), result.reshape(-1)
    starts, weights = np.empty(TERMS, np.int64), np.empty(TERMS, np.float32)
    lines[:channels] = 0
    lines[(width + 1) * channels :] = 0
    for y in range(first, first + count):
        for term in range(TERMS):
            row = y - 1 + term
            is_inside = 0 <= row < height
            starts[term] = row * width * channels if is_inside else 0
            weights[term] = taps[term] if is_inside else 0
        _combine(lines, channels, source, starts, weights, width * channels)
        for x in range(width - 1):
            for term in range(TERMS - 1):
                starts[term] = (x + term) * channels
            starts[TERMS - 1] = starts[0]
            added = noise[y, x] if len(noise) else np.float32(0)
            to = (y * (width - 1) + x) * channels
            _finish(pixels, to, lines, starts, taps, bias, added, slope)
