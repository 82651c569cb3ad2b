# SPDX-License-Identifier: Apache-2.0
"""The filter beside doubling and halving convolutions, compiled by numba.

Numba compiles anew when this file's text changes; the line below changes with the code's other
sources. Arrays are float32 and C-contiguous, channels last, channels a multiple of LANES.
"""

# Compiled from linear_code.py vector_code.py: 7af44854

from __future__ import annotations

import numpy as np
from numba import njit

from styleavatar_core.engine.cpu.linear_code import finishing_maps
from styleavatar_core.engine.cpu.vector_code import LANES, goes_past_caches

_TAPS = np.array([[1.0, 3.0, 3.0, 1.0]])  # along a row; the filter's gain is in those along y
_RUN = 4  # pixels whose values are read once for all of them
_RUNS = np.vstack([np.roll(np.pad(_TAPS, ((0, 0), (0, _RUN - 1))), k) for k in range(_RUN)])
_filter = finishing_maps([_RUNS, _TAPS])


@njit(cache=True, nogil=True)
def blur(image, first, count, taps, lines, result, bias, noise, slope):
    """Filters some rows with four taps along both axes; bias, noise and leaky ReLU follow.

    Args:
        image: (H', W', O), as much zero before it as after it.
        first: First row of the result.
        count: Rows.
        taps: (4,) along one axis: 1, 3, 3, 1, times a factor.
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
    added = np.zeros(wide, np.float32)
    row_size, is_past = wide * channels, goes_past_caches(result)
    for y in range(first, first + count):
        for term in range(4):
            row = y - before + term
            is_inside = 0 <= row < height
            starts[term] = row * width * channels if is_inside else 0
            weights[term] = taps[term] * taps[0] if is_inside else 0
        _add_rows(lines[before * channels : (before + width) * channels], source, starts, weights)
        if len(noise):
            added[:] = noise[y]
        row, sizes = y * row_size, (channels, row_size)
        for k in range(0, channels, LANES):
            for x in range(0, wide - wide % _RUN, _RUN):
                _filter_from(0, x, lines, pixels, row, k, sizes, is_past, bias, added, slope)
            for x in range(wide - wide % _RUN, wide):
                _filter_from(1, x, lines, pixels, row, k, sizes, False, bias, added, slope)


@njit(inline="always")
def _filter_from(kind, x, lines, pixels, row, k, sizes, is_past, bias, added, slope):
    """Filters a run of pixels along a row, or the pixel at x alone."""
    channels, row_size = sizes
    at = x * channels + k
    to = row + at
    _filter(
        kind, lines, at, channels, pixels, to, channels, row_size, is_past, bias, k, added, x, slope
    )


@njit(cache=True, nogil=True, fastmath=True)
def _add_rows(target, source, starts, weights):
    """Writes the weighted sum of four rows."""
    # Unsigned places: numba then leaves out the test for negative ones, and the loop is vectorized.
    a, b, c = np.uint64(starts[0]), np.uint64(starts[1]), np.uint64(starts[2])
    d = np.uint64(starts[3])
    w, x, y, z = weights[0], weights[1], weights[2], weights[3]
    for k in range(np.uint64(len(target))):
        target[k] = w * source[a + k] + x * source[b + k] + y * source[c + k] + z * source[d + k]
