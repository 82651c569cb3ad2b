# SPDX-License-Identifier: Apache-2.0
"""A level of a decoder, window by window, compiled by numba for processors with a matrix unit.

Numba compiles anew when this file's text changes; the line below changes with the code's other
sources. Arrays are float32 and C-contiguous, channels last; pieces are those of
``piece_kernels.py``, rows of them follow each other. A window is (top, left, rows, columns). It may
reach beyond its image, where everything is zero.
"""

# Compiled from matrix_code.py piece_code.py piece_kernels.py product_kernels.py: 45154d1a

from __future__ import annotations

import numpy as np
from numba import njit

from styleavatar_core.engine.cpu.matrix_code import PIECES, SIDE
from styleavatar_core.engine.cpu.piece_code import filter_pixel, split
from styleavatar_core.engine.cpu.piece_kernels import convolve
from styleavatar_core.engine.cpu.product_kernels import multiply_pixels

WIDE_HALO = 6  # rows and columns around a window that are doubled; the filter sees five
HALO = 2  # and that are filtered


@njit(cache=True, nogil=True)
def compute_windows(image, part, up, conv, to_rgb, room, pixels, feature):
    """Doubles, filters, convolves and draws a part of an image, one window below the other.

    Args:
        image: (H, W, I).
        part: Of the result; all four numbers even.
        up: Kernels, steps and phases of the doubling convolution, four taps of the filter, bias,
            noise and slope.
        conv: Kernels, steps and phases of the other convolution, bias, noise and slope.
        to_rgb: Kernels and bias of the product that gives pixels.
        room: What windows of R rows and the part's columns take: pieces of ``image`` and of the
            filtered image, the doubled image, a row of it and a pixel, noise, and the result:
            (R, columns, O), its pixels, and sums of a block.
        pixels: (2H, 2W, 12), written.
        feature: (2H, 2W, O), written; (0, 0, 0) if nobody reads it.
    """
    given, seen, wide, line, grains, result, drawn, sums = room
    top, left, rows, columns = part
    kernels, steps, phases, bias, noise, slope = conv
    most, last, pitch = len(result), top + rows, columns + HALO
    doubled, filtered, sides = 0, 0, (2 * image.shape[0], 2 * image.shape[1])
    for start in range(top, last, most):
        count = min(most, last - start)
        if start > top:  # what both windows see is there
            doubled, filtered = WIDE_HALO, HALO
            wide[:doubled] = wide[most:].copy()
            seen[:, :, : HALO * pitch] = seen[:, :, most * pitch : (most + HALO) * pitch].copy()
        window = (start, left, count, columns)
        _double(image, window, doubled, up, given, sums, wide)
        _filter(wide, window, filtered, sides, up[3:], line, seen)
        own, place = _cut(noise, window, grains), (0, count, 0, len(kernels))
        convolve(seen, kernels, steps, phases, (pitch, 1), place, sums, result, bias, own, slope)
        seen_pixels = result.reshape(-1, result.shape[2])
        multiply_pixels(seen_pixels, 0, count * columns, to_rgb[0], to_rgb[1], drawn)
        for row in range(count):
            at = row * columns
            pixels[start + row, left : left + columns] = drawn[at : at + columns]
            if len(feature):
                feature[start + row, left : left + columns] = result[row]


@njit(nogil=True)
def _double(image, window, done, up, given, sums, wide):
    """Doubles what a window's filter sees, but for the rows that are done."""
    kernels, steps, phases, _, bias, _, _ = up
    top, left, count, _ = window
    first, pitch = done // 2, wide.shape[1] // 2 + 1
    rows = (count + WIDE_HALO) // 2 - first
    split_window(image, (top // 2 + first - 2, left // 2 - 2, rows + 1, pitch), given)
    place, one = (first, rows, 0, len(kernels)), np.float32(1)
    plain, none = np.zeros_like(bias), np.empty((0, 0), np.float32)
    convolve(given, kernels, steps, phases, (pitch, 2), place, sums, wide, plain, none, one)


@njit(cache=True, nogil=True)
def split_window(image, window, pieces):
    """Writes a window of an image (H, W, I) as pieces."""
    height, width, channels = image.shape
    top, left, rows, columns = window
    groups, numbers, flat = pieces.shape[1], image.reshape(-1), pieces.reshape(-1)
    for row in range(rows):
        y, to = top + row, row * columns
        low, high = _inside(left, columns, width) if 0 <= y < height else (columns, columns)
        pieces[0, :, to : to + low] = 0
        pieces[0, :, to + high : to + columns] = 0
        for group in range(groups):
            for x in range(low, high):
                at = (y * width + left + x) * channels + group * SIDE
                split(numbers, at, flat, (group * pieces.shape[2] + to + x) * PIECES)


@njit(nogil=True)
def _filter(wide, window, done, sides, end, line, seen):
    """Filters what a window's convolution sees, but for the rows that are done; gives pieces.

    Args:
        wide: Begins one pixel before what is filtered.
        window: See above.
        done: Rows that are there.
        sides: Of the whole result, beyond which it is zero.
        end: Four taps, bias, noise and slope.
        line: Room for a row of ``wide`` and a pixel.
        seen: Pieces, written.
    """
    taps, bias, noise, slope = end
    top, left, columns = window[0] - HALO // 2, window[1] - HALO // 2, window[3] + HALO
    channels, pitch, nothing = wide.shape[2], wide.shape[1] * wide.shape[2], np.float32(0)
    source, flat = wide.reshape(-1), seen.reshape(-1)
    low, high = _inside(left, columns, sides[1])
    for row in range(done, window[2] + HALO):
        y, to = top + row, row * columns
        if not 0 <= y < sides[0]:
            seen[0, :, to : to + columns] = 0
            continue
        seen[0, :, to : to + low] = 0
        seen[0, :, to + high : to + columns] = 0
        _sum_rows(source, row * pitch, pitch, taps, line)
        for x in range(low, high):
            added = noise[y, left + x] if len(noise) else nothing
            for group in range(seen.shape[1]):
                channel, place = group * SIDE, (group * seen.shape[2] + to + x) * PIECES
                at = x * channels + channel
                filter_pixel(line, at, channels, taps, bias, channel, added, slope, flat, place)


@njit(nogil=True, fastmath=True)
def _sum_rows(source, at, pitch, taps, line):
    """Writes the sums of four rows."""
    # Unsigned places: numba then leaves out the test for negative ones, and the loop is vectorized.
    a, step, (w, x, y, z) = np.uint64(at), np.uint64(pitch), taps
    b, c, d = a + step, a + step + step, a + step + step + step
    for k in range(step):
        line[k] = w * source[a + k] + x * source[b + k] + y * source[c + k] + z * source[d + k]


@njit(inline="always")
def _inside(first, count, side):
    """Returns which of some places in a row, from ``first`` on, are in an image."""
    low = min(max(-first, 0), count)
    return low, max(low, min(count, side - first))


@njit(nogil=True)
def _cut(noise, window, grains):
    """Returns the window's part of the noise, (R, C); (0, 0) for none."""
    top, left, rows, columns = window
    if len(noise):
        grains[:rows] = noise[top : top + rows, left : left + columns]
        return grains
    return noise
