# SPDX-License-Identifier: Apache-2.0
"""Loops of :mod:`styleavatar_core.training.cpu.layers`, compiled by numba at the first call.

Arrays are float32 and C-contiguous. Each call computes a part, for threads: *planes* (a channel of
a sample each), rows or channels from ``first`` on, ``count`` of them. Sums are taken in an order
that does not depend on how many threads share the work.
"""

from __future__ import annotations

import numpy as np
from numba import njit

# Sums may be taken by vectors. What is not a number stays so: a step must see that it failed.
_FAST = {"reassoc", "contract", "nsz"}


@njit(cache=True, nogil=True, fastmath=_FAST)
def scale_back(gradient, x, first, count, scales, to_x, to_scales):
    """Differentiates ``x * scales`` for planes (N, P) and scales (N,)."""
    for plane in range(first, first + count):
        scale, total = scales[plane], np.float32(0)
        came, given, result = gradient[plane], x[plane], to_x[plane]
        for index in range(given.size):
            total += came[index] * given[index]
            result[index] = came[index] * scale
        to_scales[plane] = total


@njit(cache=True, nogil=True, fastmath=_FAST)
def finish(x, first, count, scales, biases, slope, result):
    """Scales planes (N, P), adds biases (N,), applies a leaky ReLU."""
    for plane in range(first, first + count):
        scale, bias, given, target = scales[plane], biases[plane], x[plane], result[plane]
        for index in range(given.size):
            value = given[index] * scale + bias
            target[index] = value if value > 0 else value * slope


@njit(cache=True, nogil=True, fastmath=_FAST)
def finish_back(gradient, x, first, count, scales, biases, slope, to_x, to_scales, to_biases):
    """Differentiates :func:`finish`."""
    for plane in range(first, first + count):
        scale, bias = scales[plane], biases[plane]
        came, given, result = gradient[plane], x[plane], to_x[plane]
        scaled, total = np.float32(0), np.float32(0)
        for index in range(given.size):
            value = came[index]
            value = value if given[index] * scale + bias > 0 else value * slope
            scaled += value * given[index]
            total += value
            result[index] = value * scale
        to_scales[plane] = scaled
        to_biases[plane] = total


@njit(cache=True, nogil=True, fastmath=_FAST)
def sum_blocks(wide, first, count, result):
    """Sums each 2x2 block of planes (N, H + 1, W + 1), which overlap: (N, H, W)."""
    for plane in range(first, first + count):
        for y in range(result.shape[1]):
            above, below, target = wide[plane, y], wide[plane, y + 1], result[plane, y]
            for x in range(target.size):
                target[x] = (above[x] + below[x]) + (above[x + 1] + below[x + 1])


@njit(cache=True, nogil=True, fastmath=_FAST)
def add_to_blocks(planes, first, count, result):
    """Adds each pixel of planes (N, H, W) to a 2x2 block: (N, H + 1, W + 1), written."""
    _, height, width = planes.shape
    nothing, line = np.zeros(width, np.float32), np.zeros(width + 2, np.float32)
    for plane in range(first, first + count):
        for y in range(height + 1):
            above = planes[plane, y - 1] if y > 0 else nothing
            below = planes[plane, y] if y < height else nothing
            for x in range(width):
                line[x + 1] = above[x] + below[x]
            target = result[plane, y]
            for x in range(width + 1):
                target[x] = line[x] + line[x + 1]


@njit(cache=True, nogil=True, fastmath=_FAST)
def add_doubled(image, first, count, pixels):
    """Adds images (N, H, W), doubled with the taps [1, 3, 3, 1], to their pixels (N, 4, H, W)."""
    near, far = np.float32(0.75), np.float32(0.25)
    _, height, width = image.shape
    nothing, line = np.zeros(width, np.float32), np.empty(width + 2, np.float32)
    line[0] = line[width + 1] = 0
    for plane in range(first, first + count):
        for y in range(height):
            own = image[plane, y]
            for side in range(2):
                other = y - 1 + 2 * side
                row = image[plane, other] if 0 <= other < height else nothing
                for x in range(width):
                    line[x + 1] = near * own[x] + far * row[x]
                left, right = pixels[plane, 2 * side, y], pixels[plane, 2 * side + 1, y]
                for x in range(width):
                    left[x] += near * line[x + 1] + far * line[x]
                    right[x] += near * line[x + 1] + far * line[x + 2]


@njit(cache=True, nogil=True, fastmath=_FAST)
def add_doubled_back(gradient, first, count, to_image):
    """Differentiates :func:`add_doubled` with respect to the images."""
    near, far = np.float32(0.75), np.float32(0.25)
    _, height, width = to_image.shape
    left, right = np.zeros(width + 1, np.float32), np.zeros(width + 1, np.float32)
    for plane in range(first, first + count):
        for y in range(height):
            result = to_image[plane, y]
            # Of three rows each pixel's own has both halves of weight ``near``; its neighbours'
            # facing halves have ``far``.
            for x in range(width):
                left[x] = near * (gradient[plane, 0, y, x] + gradient[plane, 2, y, x])
                right[x + 1] = near * (gradient[plane, 1, y, x] + gradient[plane, 3, y, x])
            if y > 0:
                for x in range(width):
                    left[x] += far * gradient[plane, 2, y - 1, x]
                    right[x + 1] += far * gradient[plane, 3, y - 1, x]
            if y + 1 < height:
                for x in range(width):
                    left[x] += far * gradient[plane, 0, y + 1, x]
                    right[x + 1] += far * gradient[plane, 1, y + 1, x]
            for x in range(width):
                result[x] = near * (left[x] + right[x + 1]) + far * (left[x + 1] + right[x])


@njit(cache=True, nogil=True, error_model="numpy")
def look_up(texture, uv, mask, first, count, samples):
    """Looks up some rows of texels, four samples each; zero where the mask is.

    Args:
        texture: (C, F, F).
        uv: (B, 2, 2H, 2W) in [0, 1].
        mask: (B, 2H, 2W).
        first: First row, counted through all samples: b * H + y.
        count: Rows.
        samples: (B, C, 4, H, W), written.
    """
    channels, size, _ = texture.shape
    height, width = samples.shape[3:]
    for number in range(first, first + count):
        sample, row = number // height, number % height
        for part in range(4):
            y, shift = 2 * row + part // 2, part % 2
            for column in range(width):
                x = 2 * column + shift
                weight = mask[sample, y, x]
                if weight == 0:
                    for channel in range(channels):
                        samples[sample, channel, part, row, column] = 0
                    continue
                left, right_share = _place(uv[sample, 0, y, x], size)
                top, below_share = _place(uv[sample, 1, y, x], size)
                for channel in range(channels):
                    plane = texture[channel]
                    above = plane[top, left]
                    above += right_share * (plane[top, left + 1] - above)
                    below = plane[top + 1, left]
                    below += right_share * (plane[top + 1, left + 1] - below)
                    value = weight * (above + below_share * (below - above))
                    samples[sample, channel, part, row, column] = value


@njit(cache=True, nogil=True, error_model="numpy")
def look_up_back(gradient, uv, mask, first, count, to_texture):
    """Differentiates :func:`look_up` with respect to some channels of the texture, which are zero.

    Args:
        gradient: (B, C, 4, H, W).
        uv: (B, 2, 2H, 2W).
        mask: (B, 2H, 2W).
        first: First channel.
        count: Channels.
        to_texture: (C, F, F), added to.
    """
    size, (batch, _, _, height, width) = to_texture.shape[1], gradient.shape
    for sample in range(batch):
        for y in range(2 * height):
            for x in range(2 * width):
                weight = mask[sample, y, x]
                if weight == 0:
                    continue
                left, right_share = _place(uv[sample, 0, y, x], size)
                top, below_share = _place(uv[sample, 1, y, x], size)
                part, row, column = 2 * (y % 2) + x % 2, y // 2, x // 2
                for channel in range(first, first + count):
                    plane = to_texture[channel]
                    value = weight * gradient[sample, channel, part, row, column]
                    below = value * below_share
                    above = value - below
                    right = above * right_share
                    plane[top, left] += above - right
                    plane[top, left + 1] += right
                    right = below * right_share
                    plane[top + 1, left] += below - right
                    plane[top + 1, left + 1] += right


@njit(cache=True, nogil=True, inline="always")
def _place(coordinate, size):
    """Returns the texel before a coordinate and the share of the next; the border is repeated."""
    position = coordinate * np.float32(size) - np.float32(0.5)
    position = position if position > 0 else np.float32(0)
    position = min(position, np.float32(size - 1))
    first = min(int(position), size - 2)
    return first, position - np.float32(first)
