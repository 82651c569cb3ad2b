# SPDX-License-Identifier: Apache-2.0
"""The filter beside doubling and halving convolutions, compiled by numba.

Arrays are float32 and C-contiguous, channels last.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, fastmath=True)
def blur(image, first, count, taps, lines, result, bias, noise, slope):  # noqa: ANN001, ANN201
    """Filters some rows with four taps along both axes; bias, noise and leaky ReLU follow.

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
