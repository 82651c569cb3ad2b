# SPDX-License-Identifier: Apache-2.0
"""Thin-plate splines: the smoothest surface through scattered values."""

from __future__ import annotations

import numpy as np

from styleavatar_core.types import FloatArray


def interpolate_thin_plate(
    centers: FloatArray, values: FloatArray, points: FloatArray
) -> FloatArray:
    """Returns (M, 2) values at points (M, 2), of those that are known, (N, 2), at centres (N, 2).

    Plane coordinates should be near the unit square; a little smoothing is built in.
    """
    count = len(centers)
    affine = np.concatenate([np.ones((count, 1)), centers], axis=1)
    system = np.zeros((count + 3, count + 3))
    # A little smoothing: anchors that nearly meet must not make the surface ring.
    system[:count, :count] = _kernel(centers, centers) + 1e-4 * np.eye(count)
    system[:count, count:] = affine
    system[count:, :count] = affine.T
    solution = np.linalg.solve(system, np.concatenate([values, np.zeros((3, 2))]))
    basis = np.concatenate([np.ones((len(points), 1)), points], axis=1)
    return _kernel(points, centers) @ solution[:count] + basis @ solution[count:]


def _kernel(first: FloatArray, second: FloatArray) -> FloatArray:
    squared = ((first[:, None] - second[None]) ** 2).sum(axis=-1)
    return 0.5 * squared * np.log(squared + 1e-12)
