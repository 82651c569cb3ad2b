# SPDX-License-Identifier: Apache-2.0
"""How convolutions are computed tile by tile with fewer products (Winograd; Toom and Cook).

Along one axis, a tile of the input is transformed to P points, multiplied by the kernel there, and
transformed to M pixels of the output; two axes do so one after the other.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

_LEAST_TILES = 16  # below, reading a form's kernels takes longer than what they save
_LEAST_LARGE = 48  # pixels of a side; below, large tiles reach beyond it for what they save


@dataclass(frozen=True, slots=True, eq=False)
class TileForm:
    """One kind of convolution along one axis.

    Attributes:
        image: (P, S) from the S pixels of a tile to P points.
        kernel: (K, 3) from a kernel's taps to its values of each of K classes.
        output: (M, P) from P points to M pixels.
        step: Pixels of the input from one tile to the next.
        before: Pixels of a tile before its place.
        class_of: Class of each point; points of one class share their kernel's values.
    """

    image: Matrix
    kernel: Matrix
    output: Matrix
    step: int
    before: int
    class_of: tuple[int, ...]

    @property
    def points(self) -> int:
        """P: products per tile."""
        return len(self.image)

    @property
    def pixels(self) -> int:
        """M: pixels of the output per tile."""
        return len(self.output)

    def points_of_classes(self) -> tuple[Places, Places]:
        """Returns pairs of points sorted by their pair of classes, and where each class begins.

        A pair of points (p, q) is p * P + q; a pair of classes likewise.
        """
        classes = len(self.kernel)
        pairs = [
            first * classes + second for first, second in itertools.product(self.class_of, repeat=2)
        ]
        begins = np.searchsorted(np.sort(pairs), np.arange(classes**2 + 1))
        return np.argsort(pairs, kind="stable").astype(np.int64), begins.astype(np.int64)


def _evaluation(points: tuple[float, ...], count: int) -> Matrix:
    """Evaluates a polynomial of ``count`` coefficients at each point, infinity last."""
    powers = np.array(points)[:, None] ** np.arange(count)
    return np.vstack([powers, np.eye(count)[-1:]])


def _transforms(points: tuple[float, ...], taps: int) -> tuple[Matrix, Matrix, Matrix]:
    """Returns the matrices for image, kernel and output: a product of polynomials, transposed."""
    size = len(points) + 1
    inverse = np.linalg.inv(_evaluation(points, size)).T.astype(np.float64, copy=False)
    image = inverse.round(12) + 0.0  # rows of opposite points are to be equal but for signs
    scale = np.abs(image).max(axis=1, keepdims=True)  # moved to the kernel, where it costs nothing
    outputs = _evaluation(points, size + 1 - taps).T
    return image / scale, _evaluation(points, taps) * scale, outputs


def _same(points: tuple[float, ...]) -> TileForm:
    """Returns the form of a convolution with three taps: M + 2 products for M pixels, not 3 M."""
    image, kernel, output = _transforms(points, 3)
    return TileForm(image, kernel, output, len(output), 1, tuple(range(len(image))))


def _doubling(points: tuple[float, ...]) -> TileForm:
    """Returns the form of a transposed convolution with three taps and a stride of two.

    Even pixels of the output have two taps, odd ones have one: 13 products for 12 pixels, not 18.
    """
    even, kernel, output = _transforms(points, 2)
    step, own = len(output), len(even)
    image = np.zeros((own + step, step + 1))
    image[:own] = even
    image[own:, 1:] = np.eye(step)
    taps = np.zeros((own + 1, 3))
    taps[:own, [2, 0]] = kernel
    taps[own, 1] = 1
    pixels = np.zeros((2 * step, own + step))
    pixels[::2, :own] = output
    pixels[1::2, own:] = np.eye(step)
    return TileForm(image, taps, pixels, step, 1, (*range(own), *[own] * step))


def _halving(points: tuple[float, ...]) -> TileForm:
    """Returns the form of a convolution with three taps and a stride of two.

    Two taps see even pixels of the input, one sees odd ones: 9 products for 4 pixels, not 12.
    """
    even, kernel, output = _transforms(points, 2)
    count, own = len(output), len(even)
    image = np.zeros((own + count, 2 * count + 1))
    image[:own, ::2] = even
    image[own:, 1::2] = np.eye(count)
    taps = np.zeros((own + 1, 3))
    taps[:own, [0, 2]] = kernel
    taps[own, 1] = 1
    pixels = np.hstack([output, np.eye(count)])
    return TileForm(image, taps, pixels, 2 * count, 0, (*range(own), *[own] * count))


# Reciprocal pairs of points close to 1 keep rounding errors small: 2.4, 60, 6 and 2 times those of
# a direct convolution. The last three have fewer values per kernel, for small images.
SAME = _same((0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2))
SAME_LARGE = _same((0.0, 4 / 9, -4 / 9, 4 / 5, -4 / 5, 5 / 4, -5 / 4, 9 / 4, -9 / 4))
DOUBLING = _doubling((1 / 3, -1 / 3, 4 / 5, -4 / 5, 7 / 4, -7 / 4))
HALVING = _halving((1 / 2, -1 / 2, 5 / 4, -5 / 4))
SAME_SMALL = _same((0.0, 1.0, -1.0))
DOUBLING_SMALL = _doubling((1.0, -1.0))
HALVING_SMALL = _halving((1.0, -1.0))
FORMS = (SAME, SAME_LARGE, DOUBLING, HALVING, SAME_SMALL, DOUBLING_SMALL, HALVING_SMALL)


def form_for(mode: str, sides: tuple[int, ...]) -> TileForm:
    """Returns the form that is the fastest for an image.

    Args:
        mode: ``same``, ``up`` or ``down``.
        sides: Height and width of the convolution's output.
    """
    if mode == "same" and min(sides) >= _LEAST_LARGE:
        return SAME_LARGE
    usual, small = {
        "same": (SAME, SAME_SMALL),
        "up": (DOUBLING, DOUBLING_SMALL),
        "down": (HALVING, HALVING_SMALL),
    }[mode]
    tiles = math.prod(-(-side // usual.pixels) for side in sides)
    return usual if tiles >= _LEAST_TILES else small
