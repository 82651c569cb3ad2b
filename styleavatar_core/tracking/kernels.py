# SPDX-License-Identifier: Apache-2.0
"""The inner loops of the solver, compiled: no allocation that matters, no BLAS threads, no GIL.

Compiled by numba at the first call and cached on disk. Arrays are float64 and C-contiguous; what
they hold is said in :mod:`styleavatar_core.tracking.solver`, which is what others call.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def similarity(source, target, weights):  # noqa: ANN001, ANN201
    """Eq. 1 by SVD: rotation (3, 3), translation (3,), scale."""
    total = 0.0
    from_mean, to_mean = np.zeros(3), np.zeros(3)
    for k in range(len(weights)):
        total += weights[k]
        for axis in range(3):
            from_mean[axis] += weights[k] * source[k, axis]
            to_mean[axis] += weights[k] * target[k, axis]
    from_mean /= total
    to_mean /= total
    covariance, spread = np.zeros((3, 3)), 0.0
    for k in range(len(weights)):
        for b in range(3):
            centered = weights[k] * (source[k, b] - from_mean[b])
            spread += centered * (source[k, b] - from_mean[b])
            for a in range(3):
                covariance[a, b] += (target[k, a] - to_mean[a]) * centered
    rotation, strength = nearest_rotation(covariance)
    scale = strength / spread
    translation = to_mean / scale
    for a in range(3):
        for b in range(3):
            translation[a] -= rotation[a, b] * from_mean[b]
    return rotation, translation, scale


@njit(cache=True, nogil=True)
def nearest_rotation(covariance):  # noqa: ANN001, ANN201
    """The rotation that fits best, never a reflection, and the sum of its singular values."""
    u, singular, vt = np.linalg.svd(covariance)
    strength = singular[0] + singular[1]
    if np.linalg.det(u) * np.linalg.det(vt) < 0:
        u[:, 2] = -u[:, 2]
        strength -= singular[2]
    else:
        strength += singular[2]
    rotation = np.zeros((3, 3))
    for a in range(3):
        for b in range(3):
            for c in range(3):
                rotation[a, b] += u[a, c] * vt[c, b]
    return rotation, strength


@njit(cache=True, nogil=True)
def pose_equations(source, target, weights, axis_weights, rotation, translation, scale):  # noqa: ANN001, ANN201
    """Normal equations of Eq. 1 about a pose: (7, 7) gram and (7,) moment.

    Unknowns: a small turn in the frame's axes (3), a shift (3), the relative change of scale.
    """
    gram, moment = np.zeros((7, 7)), np.zeros(7)
    turned, touched, row = np.empty(3), np.empty(4, np.int64), np.ones(4)
    for k in range(len(weights)):
        for a in range(3):
            turned[a] = 0.0
            for b in range(3):
                turned[a] += rotation[a, b] * source[k, b]
        for a in range(3):
            # A turn w moves R v by the cross product of w and R v.
            b, c = (a + 1) % 3, (a + 2) % 3
            touched[0], touched[1], touched[2], touched[3] = b, c, 3 + a, 6
            row[0], row[1], row[3] = turned[c], -turned[b], turned[a] + translation[a]
            left, weight = target[k, a] / scale - row[3], weights[k] * axis_weights[a]
            for i in range(4):
                moment[touched[i]] += weight * row[i] * left
                for j in range(4):
                    gram[touched[i], touched[j]] += weight * row[i] * row[j]
    return gram, moment


@njit(cache=True, nogil=True)
def move(rest, directions, coefficients):  # noqa: ANN001, ANN201
    """Returns rest (K, 3) plus the combination of directions (K, 3, N)."""
    moved = rest.copy()
    active = np.flatnonzero(coefficients)
    for k in range(len(rest)):
        for axis in range(3):
            for n in active:
                moved[k, axis] += directions[k, axis, n] * coefficients[n]
    return moved


@njit(cache=True, nogil=True)
def sum_gram(directions, metric, weights):  # noqa: ANN001, ANN201
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
def sum_moment(directions, turn, weights, left):  # noqa: ANN001, ANN201
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


@njit(cache=True, nogil=True)
def solve_box(gram, moment, lower, upper, x, free, pass_limit):  # noqa: ANN001, ANN201
    """Active set and Cholesky; changes ``x`` (a start within the bounds) and ``free`` in place."""
    count = len(moment)
    factor, right = np.empty((count, count)), np.empty(count)
    for _ in range(pass_limit):
        inside = np.flatnonzero(free)
        for a in range(len(inside)):
            row = gram[inside[a]]
            right[a] = moment[inside[a]]
            for j in range(count):
                if not free[j]:
                    # What the held coefficients explain is taken off the right side.
                    right[a] -= row[j] * x[j]
            for b in range(a + 1):
                factor[a, b] = row[inside[b]]
        if not _solve_positive(factor, right, len(inside)):
            return
        is_changed, was_free = False, free.copy()
        for a in range(len(inside)):
            i = inside[a]
            x[i] = right[a]
            if x[i] < lower[i] or x[i] > upper[i]:
                x[i] = min(max(x[i], lower[i]), upper[i])
                free[i] = False
                is_changed = True
        is_changed |= _release(gram, moment, lower, upper, x, was_free, free)
        if not is_changed:
            return


@njit(cache=True, nogil=True)
def _release(gram, moment, lower, upper, x, was_free, free):  # noqa: ANN001, ANN202
    """Frees what was held at a bound but would fall away from it."""
    is_changed = False
    for i in range(len(x)):
        if was_free[i] or not lower[i] < upper[i]:
            continue
        slope = -moment[i]
        for j in range(len(x)):
            slope += gram[i, j] * x[j]
        if (x[i] <= lower[i] and slope < 0) or (x[i] >= upper[i] and slope > 0):
            free[i] = True
            is_changed = True
    return is_changed


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _solve_positive(factor, right, count):  # noqa: ANN001, ANN202
    """Solves in place by Cholesky; the lower triangle holds the matrix. False if not definite."""
    for a in range(count):
        for b in range(a + 1):
            value = factor[a, b]
            for c in range(b):
                value -= factor[a, c] * factor[b, c]
            if a != b:
                factor[a, b] = value / factor[b, b]
            elif value > 0.0:
                factor[a, a] = np.sqrt(value)
            else:
                return False
    for a in range(count):
        for b in range(a):
            right[a] -= factor[a, b] * right[b]
        right[a] /= factor[a, a]
    for a in range(count - 1, -1, -1):
        for b in range(a + 1, count):
            right[a] -= factor[b, a] * right[b]
        right[a] /= factor[a, a]
    return True
