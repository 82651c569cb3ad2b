# SPDX-License-Identifier: Apache-2.0
"""What the solver sums over landmarks, compiled like :mod:`styleavatar_core.tracking.kernels`."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def visibility(normals, rotation):
    """Weights in [0.05, 1]: landmarks that face away are guessed by the detector."""
    weights = np.empty(len(normals))
    for k in range(len(normals)):
        toward = rotation[2, 0] * normals[k, 0] + rotation[2, 1] * normals[k, 1]
        toward = -(toward + rotation[2, 2] * normals[k, 2])
        weights[k] = min(max((toward + 0.3) * (0.95 / 0.6) + 0.05, 0.05), 1.0)
    return weights


@njit(cache=True, nogil=True)
def residual(target, moved, rotation, translation, scale):
    """What moved points (K, 3) leave unexplained, frame axes, model units."""
    left = np.empty_like(moved)
    for k in range(len(moved)):
        for a in range(3):
            value = target[k, a] / scale - translation[a]
            for b in range(3):
                value -= rotation[a, b] * moved[k, b]
            left[k, a] = value
    return left


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def move(rest, directions, coefficients):
    """Returns rest (K, 3) plus the combination of directions (K, 3, N)."""
    moved = np.empty_like(rest)
    for k in range(len(rest)):
        for axis in range(3):
            here, value = directions[k, axis], 0.0
            for n in range(len(coefficients)):
                value += here[n] * coefficients[n]
            moved[k, axis] = rest[k, axis] + value
    return moved


@njit(cache=True, nogil=True)
def sum_gram(directions, metric, weights):
    """Sums w_k D_k' M D_k over landmarks; directions that rest at a landmark cost nothing there."""
    landmark_count, _, count = directions.shape
    gram = np.zeros((count, count))
    for k in range(landmark_count):
        here = directions[k]
        for i in range(count):
            x, y, z = here[0, i], here[1, i], here[2, i]
            if x == 0.0 and y == 0.0 and z == 0.0:
                continue
            a = weights[k] * (metric[0, 0] * x + metric[0, 1] * y + metric[0, 2] * z)
            b = weights[k] * (metric[1, 0] * x + metric[1, 1] * y + metric[1, 2] * z)
            c = weights[k] * (metric[2, 0] * x + metric[2, 1] * y + metric[2, 2] * z)
            for j in range(i + 1):
                gram[i, j] += a * here[0, j] + b * here[1, j] + c * here[2, j]
    for i in range(count):
        for j in range(i):
            gram[j, i] = gram[i, j]
    return gram


@njit(cache=True, nogil=True)
def sum_moment(directions, turn, weights, left):
    """Sums w_k D_k' T left_k over landmarks, with T (3, 3)."""
    landmark_count, _, count = directions.shape
    moment = np.zeros(count)
    for k in range(landmark_count):
        here = directions[k]
        a = b = c = 0.0
        for axis in range(3):
            value = weights[k] * left[k, axis]
            a += turn[0, axis] * value
            b += turn[1, axis] * value
            c += turn[2, axis] * value
        for n in range(count):
            moment[n] += a * here[0, n] + b * here[1, n] + c * here[2, n]
    return moment
