# SPDX-License-Identifier: Apache-2.0
"""The paper's energies in closed form: Eq. 1 by SVD, Eq. 2 by Cholesky (LDLT) with bounds.

On one frame's landmarks; knows neither video nor detector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from styleavatar_core.tracking import kernels, landmark_kernels
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
    arrays = (np.ascontiguousarray(array, np.float64) for array in (source, target, weights))
    rotation, translation, scale = kernels.similarity(*arrays)
    return Pose(rotation, translation, scale)


def refine_pose(
    pose: Pose, source: FloatArray, target: FloatArray, weights: FloatArray, depth_weight: float
) -> Pose:
    """Takes a pose one Newton step on Eq. 1 with depth that counts less than the image.

    The closed form has one weight for all three axes; the depth of landmarks is a guess that
    follows a turning head only in part.

    Args:
        pose: A pose nearby, as of :func:`solve_pose`.
        source: (K, 3) float64 model points, decimetres.
        target: (K, 3) float64 the same points in frame coordinates.
        weights: (K,) float64, non-negative.
        depth_weight: Weight of z, against 1 of x and y; positive.

    Returns:
        The pose after the step; its rotation is orthonormal.
    """
    placed = pose.rotation, pose.translation, pose.scale
    return Pose(*kernels.pose_step(source, target, weights, depth_weight, *placed))


def solve_gaze(
    irises: FloatArray, centers: FloatArray, offsets: FloatArray, pose: Pose
) -> FloatArray:
    """Solves Eq. 1 for both eyeballs, whose centres and sizes are known: rotations by SVD.

    The depth of an iris is not observed; it follows from its distance to the eyeball's centre.
    Near the eyeball's rim that says little, so there it follows from the rotation found so far.

    Args:
        irises: (2, 5, 3) float64 where the iris points are seen, frame coordinates; z is not read.
        centers: (2, 3) float64 centres of the eyeballs, model space.
        offsets: (2, 5, 3) float64 the iris points relative to them at rest, model units.
        pose: Of the head.

    Returns:
        (2, 2) float64 radians: pitch (down positive) and yaw (towards image right positive) of each
        eyeball in the head.
    """
    return kernels.gaze(irises, centers, offsets, pose.rotation, pose.translation, pose.scale)


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
    is_open = lower < upper
    x = np.minimum(np.maximum(np.zeros_like(moment) if start is None else start, lower), upper)
    free = is_open if start is None else is_open & (x > lower) & (x < upper)
    kernels.solve_box(gram, moment, lower, upper, x, free, max_pass_count)
    return x


def solve_ridge(gram: FloatArray, moment: FloatArray) -> FloatArray:
    """Solves ``gram x = moment`` for a symmetric positive definite ``gram`` (Eq. 2, unbounded)."""
    try:
        return cho_solve(cho_factor(gram, check_finite=False), moment, check_finite=False)
    except LinAlgError:
        return np.linalg.lstsq(gram, moment, rcond=None)[0]


def gram_matrix(
    directions: FloatArray, rotation: FloatArray, axis_weights: FloatArray, weights: FloatArray
) -> FloatArray:
    """Sums the left side of the normal equations of Eq. 2 over the landmarks.

    Args:
        directions: (K, 3, N) float64, model space.
        rotation: (3, 3) float64 of the head.
        axis_weights: (3,) float64 weights of x, y, z in the frame.
        weights: (K,) float64 weights of the landmarks.

    Returns:
        (N, N) float64.
    """
    metric = (rotation.T * axis_weights) @ rotation
    return landmark_kernels.sum_gram(directions, metric, weights)


def moment_vector(
    directions: FloatArray,
    rotation: FloatArray,
    axis_weights: FloatArray,
    weights: FloatArray,
    left: FloatArray,
) -> FloatArray:
    """Sums the right side of the normal equations of Eq. 2 over the landmarks.

    Args:
        directions: (K, 3, N) float64, model space.
        rotation: (3, 3) float64 of the head.
        axis_weights: (3,) float64 weights of x, y, z in the frame.
        weights: (K,) float64 weights of the landmarks.
        left: (K, 3) float64 what is to be explained, frame axes, model units.

    Returns:
        (N,) float64.
    """
    return landmark_kernels.sum_moment(directions, rotation.T * axis_weights, weights, left)
