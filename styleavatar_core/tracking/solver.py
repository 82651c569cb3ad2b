# SPDX-License-Identifier: Apache-2.0
"""The paper's energies in closed form: Eq. 1 by SVD, Eq. 2 by Cholesky (LDLT) with bounds.

Pure numpy and scipy on one frame's landmarks; knows neither video nor detector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.linalg.lapack import dposv

from styleavatar_core.types import FloatArray


@dataclass(frozen=True, slots=True)
class Pose:
    """A similarity transform ``p = scale * (rotation @ v + translation)`` (Eq. 1).

    Attributes:
        rotation: (3, 3) float64.
        translation: (3,) float64, model units.
        scale: Frame units per model unit.
    """

    rotation: FloatArray
    translation: FloatArray
    scale: float

    def apply(self, points: FloatArray) -> FloatArray:
        """Maps (N, 3) model points to frame coordinates."""
        return self.scale * (points @ self.rotation.T + self.translation)

    def invert(self, points: FloatArray) -> FloatArray:
        """Maps (N, 3) frame points back into model space."""
        return (points / self.scale - self.translation) @ self.rotation


def solve_pose(source: FloatArray, target: FloatArray, weights: FloatArray) -> Pose:
    """Solves Eq. 1, weighted, by SVD.

    Args:
        source: (K, 3) model points, decimetres.
        target: (K, 3) the same points in frame coordinates.
        weights: (K,) non-negative.

    Returns:
        The similarity that minimises ``sum_k w_k |scale (R s_k + t) - target_k|^2``.
    """
    total = weights.sum()
    source_mean = weights @ source / total
    target_mean = weights @ target / total
    centered = source - source_mean
    covariance = (target - target_mean).T @ (centered * weights[:, None])  # (3, 3)
    u, singular, vt = np.linalg.svd(covariance)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * signs) @ vt
    scale = float((singular * signs).sum() / (weights @ (centered**2).sum(axis=1)))
    return Pose(rotation, target_mean / scale - rotation @ source_mean, scale)


def solve_eye_rotation(
    offsets: FloatArray, seen: FloatArray, head_rotation: FloatArray
) -> tuple[float, float]:
    """Solves Eq. 1 for one eyeball, whose centre and size are known: rotation by SVD.

    The depth of an iris is not observed; it follows from its distance to the eyeball's centre.

    Args:
        offsets: (5, 3) the iris points relative to the eyeball's centre at rest, model units.
        seen: (5, 2) where they are seen relative to the centre, frame axes, model units.
        head_rotation: (3, 3) of the head.

    Returns:
        Pitch (down positive) and yaw (towards image right positive), radians, in the head.
    """
    radii = (offsets**2).sum(axis=1)
    depth = -np.sqrt(np.maximum(radii - (seen**2).sum(axis=1), 0.05 * radii))
    in_head = np.concatenate([seen, depth[:, None]], axis=1) @ head_rotation
    u, _, vt = np.linalg.svd(in_head.T @ offsets)
    rotation = (u * [1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
    gaze = -rotation[:, 2]  # an eyeball does not roll: its axis says all
    return float(np.arcsin(np.clip(gaze[1], -1, 1))), float(np.arctan2(gaze[0], -gaze[2]))


def solve_bounded(
    gram: FloatArray,
    moment: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    start: FloatArray | None = None,
    max_pass_count: int = 12,
) -> FloatArray:
    """Minimises ``x' gram x / 2 - moment' x`` in a box by an active set and Cholesky.

    Args:
        gram: (N, N) symmetric positive definite.
        moment: (N,).
        lower: (N,) bounds; -inf where there is none.
        upper: (N,) bounds; equal to ``lower`` where the coefficient is given.
        start: (N,) a nearby solution, as of the last frame: its active set saves passes.
        max_pass_count: Passes of the active set.

    Returns:
        (N,) float64 within the bounds.
    """
    open_range = lower < upper
    x = np.minimum(np.maximum(np.zeros_like(moment) if start is None else start, lower), upper)
    free = open_range if start is None else open_range & (x > lower) & (x < upper)
    for _ in range(max_pass_count):
        inside = np.flatnonzero(free)
        if len(inside):
            rows = gram[inside]
            # What the held coefficients explain is taken off the right side.
            held = np.where(free, 0.0, x)
            _, solution, failure = dposv(rows[:, inside], moment[inside] - rows @ held)
            if failure:
                break
            x[inside] = solution
        outside = (x < lower) | (x > upper)
        x = np.minimum(np.maximum(x, lower), upper)
        slope = gram @ x - moment
        released = ((x <= lower) & (slope < 0)) | ((x >= upper) & (slope > 0))
        released &= ~free & open_range
        if not outside.any() and not released.any():
            break
        free = (free & ~outside) | released
    return x


def solve_ridge(gram: FloatArray, moment: FloatArray) -> FloatArray:
    """Solves ``gram x = moment`` for a symmetric positive definite ``gram`` (Eq. 2, unbounded)."""
    try:
        return cho_solve(cho_factor(gram, check_finite=False), moment, check_finite=False)
    except LinAlgError:
        return np.linalg.lstsq(gram, moment, rcond=None)[0]


def normal_equations(
    directions: FloatArray,
    rotation: FloatArray,
    axis_weights: FloatArray,
    weights: FloatArray,
    left: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Sums the normal equations of Eq. 2 over the landmarks.

    Compiled and not a BLAS product: most directions leave most landmarks where they are, and
    BLAS threads hurt where several streams share a processor.

    Args:
        directions: (K, 3, N) float64, model space.
        rotation: (3, 3) float64 of the head.
        axis_weights: (3,) float64 weights of x, y, z in the frame.
        weights: (K,) float64 weights of the landmarks.
        left: (K, 3) float64 what is to be explained, frame axes, model units.

    Returns:
        (N, N) float64 gram and (N,) float64 moment.
    """
    count = directions.shape[2]
    gram, moment = np.zeros((count, count)), np.zeros(count)
    _sum_equations(directions, rotation, axis_weights, weights, left, gram, moment)
    return gram + np.tril(gram, -1).T, moment


@njit(cache=True, nogil=True)
def _sum_equations(  # noqa: ANN202
    directions,  # noqa: ANN001
    rotation,  # noqa: ANN001
    axis_weights,  # noqa: ANN001
    weights,  # noqa: ANN001
    left,  # noqa: ANN001
    gram,  # noqa: ANN001
    moment,  # noqa: ANN001
):
    landmark_count, _, count = directions.shape
    turned = np.empty((3, count))
    active = np.empty(count, np.int64)
    for k in range(landmark_count):
        used = 0
        for n in range(count):
            x, y, z = directions[k, 0, n], directions[k, 1, n], directions[k, 2, n]
            if x == 0.0 and y == 0.0 and z == 0.0:
                continue
            active[used] = n
            for axis in range(3):
                scale = np.sqrt(weights[k] * axis_weights[axis])
                turned[axis, used] = scale * (
                    rotation[axis, 0] * x + rotation[axis, 1] * y + rotation[axis, 2] * z
                )
            used += 1
        for axis in range(3):
            rest = np.sqrt(weights[k] * axis_weights[axis]) * left[k, axis]
            for i in range(used):
                value = turned[axis, i]
                moment[active[i]] += value * rest
                for j in range(i + 1):
                    gram[active[i], active[j]] += value * turned[axis, j]
