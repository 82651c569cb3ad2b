# SPDX-License-Identifier: Apache-2.0
"""Transforms of tiles, compiled by numba for each of the forms in ``tile_forms.py``.

Compiled at the first call and cached on disk; they release the GIL. Numba compiles anew when this
file's text changes; the line below changes with the code's other sources. What is compiled for each
form is a function in a function, as numba caches those by the numbers they enclose.

Arrays are float32 and C-contiguous, channels last, channels a multiple of LANES. Tiles are numbered
row by row. What N tiles are transformed to are P * P *planes* of (N, C), one for each pair of
points, with a gap after each: their lines would compete for the same places of the cache otherwise.
``kind`` is the form's place in ``FORMS``.
"""

# Compiled from linear_code.py tile_forms.py vector_code.py: a12d77b6

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import njit

from styleavatar_core.engine.cpu.linear_code import finishing_maps, linear_maps
from styleavatar_core.engine.cpu.tile_forms import FORMS, TileForm
from styleavatar_core.engine.cpu.vector_code import LANES, goes_past_caches

GAP = 16  # floats after a plane
_AHEAD = 4 * LANES  # of a plane, fetched while what is before it is transformed

_to_points = linear_maps([form.image for form in FORMS], fetches=True)
_to_planes = linear_maps([form.image for form in FORMS], fetches_to_write=True)
_to_pixels = linear_maps([form.output for form in FORMS], fetches=True)
_finish = finishing_maps([form.output for form in FORMS])


class Transforms(NamedTuple):
    """Of one form.

    Attributes:
        gather: From pixels to planes.
        scatter: From planes to pixels.
    """

    gather: Callable[..., None]
    scatter: Callable[..., None]


def _gathering(kind: int, form: TileForm) -> Callable[..., None]:
    """Returns what transforms tiles to planes."""
    step, before, points, span = form.step, form.before, *form.image.shape

    @njit(cache=True, nogil=True)
    def gather(image, first, count, columns, tiles, place):
        """Transforms some tiles; zero beyond the image's border.

        Args:
            image: (H, W, C).
            first: First tile.
            count: Tiles.
            columns: Tiles per row.
            tiles: P * P planes, written.
            place: Of the first tile in a plane.
        """
        height, width, channels = image.shape
        pixels, plane = image.reshape(-1), tiles.size // points**2
        edge = np.zeros(span * span * channels, np.float32)
        lines = np.empty(points * span * LANES, np.float32)
        next_tile = step * channels
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
                    _to_points(kind, source, at, row, lines, x * LANES, span * LANES, next_tile)
                for p in range(points):
                    to = p * points * plane + (place + tile) * channels + k
                    at = p * span * LANES
                    _to_planes(kind, lines, at, LANES, tiles, to, plane, _AHEAD)

    return gather


def _scattering(kind: int, form: TileForm) -> Callable[..., None]:
    """Returns what transforms planes to pixels."""
    size, points = form.output.shape

    @njit(cache=True, nogil=True)
    def scatter(products, first, count, columns, result, low, high, bias, noise, slope):
        """Transforms products back into pixels, adds bias and noise, applies the leaky ReLU.

        Args:
            products: P * P planes.
            first: First tile.
            count: Tiles.
            columns: Tiles per row.
            result: (H, W, O), written; what tiles have beyond it is dropped.
            low: First channel that is computed.
            high: Channel after the last one.
            bias: (O,).
            noise: (H, W), times its strength; (0, 0) for none.
            slope: Of the leaky ReLU; 1 for none.
        """
        height, width, channels = result.shape
        pixels, plane = result.reshape(-1), products.size // points**2
        lines = np.empty(size * points * LANES, np.float32)
        edge = np.empty(size * size * channels, np.float32)
        added, is_large = np.zeros(size * size, np.float32), goes_past_caches(result)
        for tile in range(count):
            top, left = (first + tile) // columns * size, (first + tile) % columns * size
            rows, wide = min(size, height - top), min(size, width - left)
            is_whole = wide == size
            is_past = is_large and is_whole
            target, start, row = pixels, (top * width + left) * channels, width * channels
            if not is_whole:
                target, start, row = edge, 0, size * channels
            if len(noise):
                for y in range(rows):
                    added[y * size : y * size + wide] = noise[top + y, left : left + wide]
            for k in range(low, high, LANES):
                for p in range(points):
                    at = p * plane + tile * channels + k
                    step, to = points * plane, p * LANES
                    _to_pixels(kind, products, at, step, lines, to, points * LANES, _AHEAD)
                for y in range(rows):
                    at, to = y * points * LANES, start + y * row + k
                    _finish(
                        kind,
                        lines,
                        at,
                        LANES,
                        target,
                        to,
                        channels,
                        size * channels,
                        is_past,
                        bias,
                        k,
                        added,
                        y * size,
                        slope,
                    )
            if not is_whole:
                for y in range(rows):
                    for x in range(wide):
                        to = ((top + y) * width + left + x) * channels
                        at = (y * size + x) * channels
                        pixels[to + low : to + high] = edge[at + low : at + high]

    return scatter


TRANSFORMS = {
    form: Transforms(_gathering(kind, form), _scattering(kind, form))
    for kind, form in enumerate(FORMS)
}
