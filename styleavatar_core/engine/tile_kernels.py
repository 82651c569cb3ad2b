# SPDX-License-Identifier: Apache-2.0
"""The loops of :mod:`styleavatar_core.engine.tiled_convs`, compiled.

Compiled by numba at the first call and cached on disk; they release the GIL. Numba compiles anew
when this file changes: touch it where ``vector_code.py`` or ``tile_forms.py`` did.

Arrays are float32 and C-contiguous, channels last, channels a multiple of eight. Tiles are numbered
row by row. What a strip of N tiles is transformed to are P * P *planes* of (N, C), one for each
pair of points, with a gap after each: their lines would compete for the same places of the cache
otherwise. ``kind`` is the form's place in ``FORMS``.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from styleavatar_core.engine.tile_forms import FORMS
from styleavatar_core.engine.vector_code import (
    BLOCK_COLUMNS,
    BLOCK_ROWS,
    LANES,
    finishing_map,
    linear_map,
    multiply_block,
)

GAP = 16  # floats after a plane

_same_in, _large_in, _doubling_in, _halving_in = (linear_map(form.image) for form in FORMS)
_same_along, _large_along, _doubling_along, _halving_along = (
    linear_map(form.output) for form in FORMS
)
_same_out, _large_out, _doubling_out, _halving_out = (finishing_map(form.output) for form in FORMS)


@njit(cache=True, nogil=True)
def _transform(kind, source, at, step, target, to, stride):  # noqa: ANN001, ANN202
    """Transforms the pixels of a tile to points, along one axis."""
    if kind == 0:
        _same_in(source, at, step, target, to, stride)
    elif kind == 1:
        _large_in(source, at, step, target, to, stride)
    elif kind == 2:
        _doubling_in(source, at, step, target, to, stride)
    else:
        _halving_in(source, at, step, target, to, stride)


@njit(cache=True, nogil=True)
def _transform_back(kind, source, at, step, target, to, stride):  # noqa: ANN001, ANN202
    """Transforms points to pixels, along one axis."""
    if kind == 0:
        _same_along(source, at, step, target, to, stride)
    elif kind == 1:
        _large_along(source, at, step, target, to, stride)
    elif kind == 2:
        _doubling_along(source, at, step, target, to, stride)
    else:
        _halving_along(source, at, step, target, to, stride)


@njit(cache=True, nogil=True)
def _finish(kind, source, at, step, target, to, stride, bias, k, noise, first, slope):  # noqa: ANN001, ANN202
    """As ``_transform_back``, plus bias and noise, then leaky ReLU."""
    if kind == 0:
        _same_out(source, at, step, target, to, stride, bias, k, noise, first, slope)
    elif kind == 1:
        _large_out(source, at, step, target, to, stride, bias, k, noise, first, slope)
    elif kind == 2:
        _doubling_out(source, at, step, target, to, stride, bias, k, noise, first, slope)
    else:
        _halving_out(source, at, step, target, to, stride, bias, k, noise, first, slope)


@njit(cache=True, nogil=True)
def gather(kind, image, first, count, columns, step, before, span, points, tiles):  # noqa: ANN001, ANN201
    """Transforms some tiles; zero beyond the image's border.

    Args:
        kind: Which form.
        image: (H, W, C).
        first: First tile.
        count: Tiles.
        columns: Tiles per row.
        step: Distance of tiles, pixels.
        before: Pixels of a tile before its place.
        span: Pixels of a tile.
        points: P.
        tiles: P * P planes, written.
    """
    height, width, channels = image.shape
    pixels, plane = image.reshape(-1), tiles.size // points**2
    edge = np.zeros(span * span * channels, np.float32)
    lines = np.empty(points * span * LANES, np.float32)
    for tile in range(count):
        top = (first + tile) // columns * step - before
        left = (first + tile) % columns * step - before
        source, start, row = pixels, (top * width + left) * channels, width * channels
        if top < 0 or left < 0 or top + span > height or left + span > width:
            source, start, row = edge, 0, span * channels
            edge[:] = 0
            x, stop = max(left, 0), min(left + span, width)
            for y in range(max(top, 0), min(top + span, height)):
                to = ((y - top) * span + x - left) * channels
                at = (y * width + x) * channels
                edge[to : to + (stop - x) * channels] = pixels[at : at + (stop - x) * channels]
        for k in range(0, channels, LANES):
            for x in range(span):
                at = start + x * channels + k
                _transform(kind, source, at, row, lines, x * LANES, span * LANES)
            for p in range(points):
                to = p * points * plane + tile * channels + k
                _transform(kind, lines, p * span * LANES, LANES, tiles, to, plane)


@njit(cache=True, nogil=True)
def multiply(tiles, kernels, products, count, order, begins):  # noqa: ANN001, ANN201
    """Multiplies planes by the kernels of their classes.

    Args:
        tiles: Planes of (N, I); N a multiple of BLOCK_ROWS.
        kernels: (classes * O / 16, I, 16).
        products: Planes of (N, O), written.
        count: N.
        order: Planes sorted by class.
        begins: (classes + 1,) where each class begins in ``order``.
    """
    _, depth, width = kernels.shape
    classes, planes, flat = len(begins) - 1, len(order), kernels.reshape(-1)
    panels = len(kernels) // classes
    outputs = panels * width
    plane, result = tiles.size // planes, products.size // planes
    panel = depth * width
    last = flat.size - panel
    for number in range(classes):
        for column in range(panels):
            at = (number * panels + column) * panel
            places = order[begins[number] : begins[number + 1]]
            # The next panel is fetched little by little: memory is slower than the products.
            pace = -(-width // max(1, len(places) * count // BLOCK_ROWS))
            ahead, end = min(at + panel, last), min(at + 2 * panel, flat.size)
            for place in places:
                for row in range(0, count, BLOCK_ROWS):
                    a, c = place * plane + row * depth, place * result + row * outputs
                    to = c + column * BLOCK_COLUMNS
                    multiply_block(
                        tiles, a, depth, flat, at, products, to, outputs, depth, ahead, pace
                    )
                    ahead = min(ahead + pace * depth, end)


@njit(cache=True, nogil=True)
def multiply_pixels(image, first, count, kernels, bias, result):  # noqa: ANN001, ANN201
    """Multiplies some pixels by one matrix and adds a bias.

    Args:
        image: (N, I), N at least BLOCK_ROWS.
        first: First pixel.
        count: Pixels.
        kernels: (ceil(O / 16), I, 16).
        bias: (O,).
        result: (N, O), written.
    """
    depth, outputs = image.shape[1], len(bias)
    flat, pixels, panel = kernels.reshape(-1), image.reshape(-1), depth * BLOCK_COLUMNS
    block = np.empty(BLOCK_ROWS * BLOCK_COLUMNS, np.float32)
    for start in range(first, first + count, BLOCK_ROWS):
        row = min(start, len(image) - BLOCK_ROWS)  # the last block may begin within another
        for column in range(len(kernels)):
            at, to = column * panel, column * BLOCK_COLUMNS
            multiply_block(
                pixels, row * depth, depth, flat, at, block, 0, BLOCK_COLUMNS, depth, at, 0
            )
            for index in range(BLOCK_ROWS):
                for k in range(to, min(to + BLOCK_COLUMNS, outputs)):
                    result[row + index, k] = block[index * BLOCK_COLUMNS + k - to] + bias[k]


@njit(cache=True, nogil=True)
def scatter(kind, products, first, count, columns, size, points, result, bias, noise, slope):  # noqa: ANN001, ANN201
    """Transforms products back into pixels, adds bias and noise, applies the leaky ReLU.

    Args:
        kind: Which form.
        products: P * P planes.
        first: First tile.
        count: Tiles.
        columns: Tiles per row.
        size: M, pixels of a tile.
        points: P.
        result: (H, W, O), written; what tiles have beyond it is dropped.
        bias: (O,).
        noise: (H, W), times its strength; (0, 0) for none.
        slope: Of the leaky ReLU; 1 for none.
    """
    height, width, channels = result.shape
    pixels, plane = result.reshape(-1), products.size // points**2
    lines = np.empty(size * points * LANES, np.float32)
    edge = np.empty(size * size * channels, np.float32)
    added = np.zeros(size * size, np.float32)
    for tile in range(count):
        top, left = (first + tile) // columns * size, (first + tile) % columns * size
        rows, wide = min(size, height - top), min(size, width - left)
        is_whole = wide == size
        target, start, row = pixels, (top * width + left) * channels, width * channels
        if not is_whole:
            target, start, row = edge, 0, size * channels
        if len(noise):
            for y in range(rows):
                added[y * size : y * size + wide] = noise[top + y, left : left + wide]
        for k in range(0, channels, LANES):
            for p in range(points):
                at = p * plane + tile * channels + k
                _transform_back(
                    kind, products, at, points * plane, lines, p * LANES, points * LANES
                )
            for y in range(rows):
                at, to = y * points * LANES, start + y * row + k
                _finish(
                    kind, lines, at, LANES, target, to, channels, bias, k, added, y * size, slope
                )
        if not is_whole:
            for y in range(rows):
                to = ((top + y) * width + left) * channels
                at = y * size * channels
                pixels[to : to + wide * channels] = edge[at : at + wide * channels]


@njit(cache=True, nogil=True, fastmath=True)
def blur(image, first, count, taps, lines, result, bias, noise, slope):  # noqa: ANN001, ANN201
    """Filters some rows with four taps along both axes, then as :func:`scatter`.

    Args:
        image: (H', W', O), as much zero before it as after it.
        first: First row of the result.
        count: Rows.
        taps: (4,).
        lines: ((W + 3) * O,) for the filter along y.
        result: (H, W, O), written.
        bias: (O,).
        noise: (H, W), times its strength; (0, 0) for none.
        slope: Of the leaky ReLU; 1 for none.
    """
    height, width, channels = image.shape
    wide = result.shape[1]
    before = (wide + 3 - width) // 2
    source, pixels = image.reshape(-1), result.reshape(-1)
    starts, weights = np.empty(4, np.int64), np.empty(4, np.float32)
    lines[: before * channels] = 0
    lines[(before + width) * channels :] = 0
    plain, nothing = np.zeros(width * channels, np.float32), np.float32(0)
    for y in range(first, first + count):
        for term in range(4):
            row = y - before + term
            is_inside = 0 <= row < height
            starts[term] = row * width * channels if is_inside else 0
            weights[term] = taps[term] if is_inside else 0
        _filter(lines, before * channels, source, starts, weights, plain, nothing, np.float32(1))
        for x in range(wide):
            for term in range(4):
                starts[term] = (x + term) * channels
            added = noise[y, x] if len(noise) else nothing
            to = (y * wide + x) * channels
            _filter(pixels, to, lines, starts, taps, bias, added, slope)


@njit(cache=True, nogil=True, fastmath=True)
def _filter(target, to, source, starts, taps, bias, added, slope):  # noqa: ANN001, ANN202
    """Writes as many values as there are in ``bias``: four sums, bias and number, leaky ReLU."""
    # Unsigned places: numba then leaves out the test for negative ones, and the loop is vectorized.
    a, b, c = np.uint64(starts[0]), np.uint64(starts[1]), np.uint64(starts[2])
    d, o = np.uint64(starts[3]), np.uint64(to)
    w, x, y, z = taps[0], taps[1], taps[2], taps[3]
    for k in range(np.uint64(len(bias))):
        value = w * source[a + k] + x * source[b + k] + y * source[c + k] + z * source[d + k]
        value += bias[k] + added
        target[o + k] = max(value, slope * value)
