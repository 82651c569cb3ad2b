# SPDX-License-Identifier: Apache-2.0
"""The inner loops of the solver, compiled: no allocation that matters, no BLAS threads, no GIL.

Compiled by numba at the first call and cached on disk. Arrays are float64 and C-contiguous; what
they hold is said in :mod:`styleavatar_core.tracking.solver`, which is what others call.
"""

from __future__ import annotations

import numpy as np
from numba import njit

# Of an iris point's squared distance across to its radius: beyond, it lies near the eyeball's rim.
_RIM_SHARE = 0.85
_RIM_TURN_COUNT = 5


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
    if _determinant(u) * _determinant(vt) < 0:
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
def _determinant(m):  # noqa: ANN001, ANN202
    minor = m[1, 1] * m[2, 2] - m[1, 2] * m[2, 1], m[1, 2] * m[2, 0] - m[1, 0] * m[2, 2]
    return (
        m[0, 0] * minor[0] + m[0, 1] * minor[1] + m[0, 2] * (m[1, 0] * m[2, 1] - m[1, 1] * m[2, 0])
    )


@njit(cache=True, nogil=True)
def pose_step(source, target, weights, depth_weight, rotation, translation, scale):  # noqa: ANN001, ANN201
    """One Newton step of Eq. 1: the rotation, translation and scale after it.

    Unknowns: a small turn in the frame's axes (3), a shift (3), the relative change of scale.
    """
    gram, step = np.zeros((7, 7)), np.zeros(7)
    turned, touched, row = np.empty(3), np.empty(4, np.int64), np.ones(4)
    for k in range(len(weights)):
        for a in range(3):
            turned[a] = rotation[a, 0] * source[k, 0] + rotation[a, 1] * source[k, 1]
            turned[a] += rotation[a, 2] * source[k, 2]
        for a in range(3):
            # A turn w moves R v by the cross product of w and R v.
            b, c = (a + 1) % 3, (a + 2) % 3
            touched[0], touched[1], touched[2], touched[3] = b, c, 3 + a, 6
            row[0], row[1], row[3] = turned[c], -turned[b], turned[a] + translation[a]
            weight = weights[k] * (depth_weight if a == 2 else 1.0)
            left = weight * (target[k, a] / scale - row[3])
            for i in range(4):
                step[touched[i]] += row[i] * left
                for j in range(4):
                    gram[touched[i], touched[j]] += weight * row[i] * row[j]
    if not _solve_positive(gram, step, 7):
        return rotation.copy(), translation.copy(), scale
    return _turned(rotation, step), translation + step[3:6], scale * (1.0 + step[6])


@njit(cache=True, nogil=True)
def _turned(rotation, vector):  # noqa: ANN001, ANN202
    """Turns each column of a rotation by a rotation vector (Rodrigues)."""
    x, y, z = vector[0], vector[1], vector[2]
    square = x * x + y * y + z * z
    angle = np.sqrt(square)
    sine = np.sin(angle) / angle if angle > 1e-8 else 1.0
    rest = (1.0 - np.cos(angle)) / square if angle > 1e-8 else 0.5
    result = np.empty((3, 3))
    for column in range(3):
        a, b, c = rotation[0, column], rotation[1, column], rotation[2, column]
        along, cosine = rest * (x * a + y * b + z * c), 1.0 - rest * square
        result[0, column] = cosine * a + sine * (y * c - z * b) + along * x
        result[1, column] = cosine * b + sine * (z * a - x * c) + along * y
        result[2, column] = cosine * c + sine * (x * b - y * a) + along * z
    return result


@njit(cache=True, nogil=True)
def eye_rotation(offsets, seen, head):  # noqa: ANN001, ANN201
    """Eq. 1 for an eyeball: pitch and yaw; the depth of an iris follows from its distance."""
    count = len(offsets)
    radii, across, depth = np.empty(count), np.empty(count), np.empty(count)
    for n in range(count):
        radii[n] = offsets[n, 0] ** 2 + offsets[n, 1] ** 2 + offsets[n, 2] ** 2
        across[n] = seen[n, 0] ** 2 + seen[n, 1] ** 2
        depth[n] = -np.sqrt(max(radii[n] - across[n], 0.05 * radii[n]))
    at_rim = across > _RIM_SHARE * radii
    for _ in range(_RIM_TURN_COUNT if at_rim.any() else 1):
        covariance = np.zeros((3, 3))
        for n in range(count):
            for a in range(3):
                in_head = seen[n, 0] * head[0, a] + seen[n, 1] * head[1, a] + depth[n] * head[2, a]
                for b in range(3):
                    covariance[a, b] += in_head * offsets[n, b]
        rotation, _ = nearest_rotation(covariance)
        for n in range(count):
            if at_rim[n]:
                depth[n] = 0.0
                for a in range(3):
                    for b in range(3):
                        depth[n] += head[2, a] * rotation[a, b] * offsets[n, b]
    # An eyeball does not roll: its axis says all.
    x, y, z = -rotation[0, 2], -rotation[1, 2], -rotation[2, 2]
    return np.arcsin(min(max(y, -1.0), 1.0)), np.arctan2(x, -z)


@njit(cache=True, nogil=True)
def gaze(irises, centers, offsets, rotation, translation, scale):  # noqa: ANN001, ANN201
    """Pitch and yaw (2, 2) of both eyeballs; irises (2, 5, 3) in frame coordinates."""
    found, seen = np.empty((2, 2)), np.empty_like(irises[0])
    for eye in range(2):
        for a in range(3):
            place = translation[a]
            for b in range(3):
                place += rotation[a, b] * centers[eye, b]
            seen[:, a] = irises[eye, :, a] / scale - place
        found[eye, 0], found[eye, 1] = eye_rotation(offsets[eye], seen, rotation)
    return found


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
