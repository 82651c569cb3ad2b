# SPDX-License-Identifier: Apache-2.0
"""How convolutions are computed tile by tile with fewer products (Winograd; Toom and Cook).

Along one axis, a tile of the input is transformed to P points, multiplied by the kernel there, and
transformed to M pixels of the output; two axes do so one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from styleavatar_core.engine.tile_kernels import TERMS
from styleavatar_core.types import FloatArray

Matrix = npt.NDArray[np.float64]

TILE = 4  # pixels of the input from one tile to the next
CLASSES = 6  # different kernels along one axis


@dataclass(frozen=True, slots=True)
class Combination:
    """A sparse matrix as a table of at most five terms per row.

    Attributes:
        index: (R, 5) int64 columns.
        weight: (R, 5) float32; 0 where a row has fewer terms.
    """

    index: npt.NDArray[np.int64]
    weight: FloatArray

    @classmethod
    def of(cls, matrix: Matrix) -> Combination:
        """Returns the table of a matrix (R, C)."""
        index = np.zeros((len(matrix), TERMS), np.int64)
        weight = np.zeros((len(matrix), TERMS), np.float32)
        for row, values in enumerate(matrix):
            columns = np.flatnonzero(values)
            index[row] = columns[0]  # what is not used reads what is read anyway
            index[row, : len(columns)] = columns
            weight[row, : len(columns)] = values[columns]
        return cls(index, weight)


@dataclass(frozen=True, slots=True)
class TileForm:
    """One kind of convolution along one axis.

    Attributes:
        image: From the pixels of a tile to P points.
        kernel: (6, 3) float64, from a kernel's taps to its values of each class.
        output: From P points to M pixels.
        before: Pixels of a tile before its place.
        span: Pixels of a tile.
        groups: Points by class by group. Points of one class share their kernel's values; classes
            of one group have as many points each.
    """

    image: Combination
    kernel: Matrix
    output: Combination
    before: int
    span: int
    groups: tuple[tuple[tuple[int, ...], ...], ...]


def _evaluation(points: tuple[float, ...], count: int) -> Matrix:
    """Evaluates a polynomial of ``count`` coefficients at each point, infinity last."""
    powers = np.array(points)[:, None] ** np.arange(count)
    return np.vstack([powers, np.eye(count)[-1:]])


def _transforms(points: tuple[float, ...], taps: int) -> tuple[Matrix, Matrix, Matrix]:
    """Returns the matrices for image, kernel and output: a product of polynomials, transposed."""
    size = len(points) + 1
    image = np.linalg.inv(_evaluation(points, size)).T
    image[np.abs(image) < 1e-12] = 0
    scale = np.abs(image).max(axis=1, keepdims=True)  # moved to the kernel, where it costs nothing
    outputs = _evaluation(points, size + 1 - taps).T
    return image / scale, _evaluation(points, taps) * scale, outputs


def _same() -> TileForm:
    """Returns the form of a convolution with three taps: 6 products for 4 pixels, not 12.

    Reciprocal pairs of points close to 1 keep the rounding error below twice that of a direct
    convolution; with the usual 1 and 2 it is 2.6 times.
    """
    image, kernel, output = _transforms((0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2), 3)
    groups = (tuple((point,) for point in range(CLASSES)),)
    return TileForm(Combination.of(image), kernel, Combination.of(output), 1, 6, groups)


def _doubling() -> TileForm:
    """Returns the form of a transposed convolution with three taps and a stride of two.

    Even pixels of the output have two taps, odd ones have one: 9 products for 8 pixels, not 12.
    """
    even, kernel, output = _transforms((1 / 2, -1 / 2, 5 / 4, -5 / 4), 2)
    image = np.zeros((5 + TILE, 5))
    image[:5] = even
    image[5:, 1:] = np.eye(TILE)
    taps = np.zeros((CLASSES, 3))
    taps[:5, [2, 0]] = kernel
    taps[5, 1] = 1
    pixels = np.zeros((2 * TILE, 5 + TILE))
    pixels[::2, :5] = output
    pixels[1::2, 5:] = np.eye(TILE)
    groups = (tuple((point,) for point in range(5)), (tuple(range(5, 5 + TILE)),))
    return TileForm(Combination.of(image), taps, Combination.of(pixels), 1, 5, groups)


SAME = _same()
DOUBLING = _doubling()
