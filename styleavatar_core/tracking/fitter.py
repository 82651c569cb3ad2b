# SPDX-License-Identifier: Apache-2.0
"""Fits the face model to landmarks: Eq. 1 and Eq. 2 in turns, and eyeballs (paper, Sec. 3.1).

Knows no video and keeps no state but the person's identity; the caller passes the last frame's
result as the start of the next.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from styleavatar_core.face3d import landmark_groups as groups
from styleavatar_core.face3d.camera import eye_matrix
from styleavatar_core.face3d.model import FaceModel
from styleavatar_core.tracking import landmark_kernels
from styleavatar_core.tracking.fit_prior import ExpressionPrior, FitConfig, LandmarkTrust
from styleavatar_core.tracking.rest_shape import LandmarkModel
from styleavatar_core.tracking.solver import (
    Pose,
    gram_matrix,
    moment_vector,
    refine_pose,
    solve_bounded,
    solve_gaze,
    solve_pose,
)
from styleavatar_core.types import FloatArray

_FACE = slice(0, groups.FACE_LANDMARK_COUNT)
_IRISES = np.array([groups.LEFT_IRIS, groups.RIGHT_IRIS])
_COLD_TURN_COUNT = 3  # more turns where there is no last frame to start from


@dataclass(frozen=True, slots=True)
class Fit:
    """One frame, fitted.

    Attributes:
        pose: Eq. 1.
        expression: (E,) float64.
        eye_rotation: (2, 2) float64 radians; rows left, right; columns pitch, yaw.
    """

    pose: Pose
    expression: FloatArray
    eye_rotation: FloatArray


class FaceFitter:
    """Fits one person's face.

    Args:
        model: The face model.
        identity: (I,) coefficients, or None for the mean face.
        config: Numbers of the fit.
    """

    def __init__(
        self, model: FaceModel, identity: FloatArray | None = None, config: FitConfig | None = None
    ) -> None:
        self.config = config or FitConfig()
        self._landmarks = LandmarkModel(model)
        self._directions = self._landmarks.expression_directions
        self._trust = LandmarkTrust(self.config, self._directions)
        self._prior = ExpressionPrior(self.config, model)
        self.identity: FloatArray = np.zeros(model.identity_basis.shape[-1])
        self.set_identity(self.identity if identity is None else identity)

    def set_identity(self, identity: FloatArray) -> None:
        """Fixes who is fitted from now on; (I,) coefficients."""
        self.identity = np.asarray(identity, np.float64)
        self._rest = self._landmarks.rest(self.identity)

    def fit(self, landmarks: FloatArray, start: Fit | None = None) -> Fit:
        """Fits pose, gaze and expression to one frame.

        Args:
            landmarks: (478, 3) in frame coordinates, z on the scale of x.
            start: The last frame's fit, if there is one.
        """
        target = np.asarray(landmarks, np.float64)
        face = np.ascontiguousarray(target[_FACE])
        expression = start.expression if start else np.zeros(self._directions.shape[-1])
        moved = landmark_kernels.move(self._rest.points, self._directions, expression)
        # In closed form: where the head was before has no say, however it has jumped.
        pose = solve_pose(moved, face, self._trust.pose_weights)
        gaze: FloatArray = np.zeros((2, 2))
        gram: FloatArray | None = None
        turns = self.config.iteration_count + (0 if start else _COLD_TURN_COUNT)
        for turn in range(turns):
            pose = self._fit_pose(moved, face, pose)
            if turn in (0, turns - 1):  # the pose hardly moves in between
                gaze = self._fit_gaze(target, pose)
            weights = self._trust.weights * self._visibility(pose)
            if gram is None or start is None:
                gram = self._regularized_gram(pose, weights)
            residual = _residual(face, pose, moved)
            expression = self._fit_expression(gram, weights, residual, pose, gaze, expression)
            moved = landmark_kernels.move(self._rest.points, self._directions, expression)
        return Fit(self._fit_pose(moved, face, pose), expression, gaze)

    def predicted(self, fit: Fit) -> FloatArray:
        """Returns where the fit puts the 478 landmarks, (478, 3) float64, frame coordinates."""
        rest = self._rest
        irises = np.zeros((10, 3))
        eyes = zip(rest.eye_centers, _IRISES, rest.iris_offsets, fit.eye_rotation, strict=True)
        for center, iris, offsets, (pitch, yaw) in eyes:
            turned = offsets @ eye_matrix(float(pitch), float(yaw)).T + center
            irises[iris - groups.FACE_LANDMARK_COUNT] = turned
        moved = landmark_kernels.move(rest.points, self._directions, fit.expression)
        return fit.pose.apply(np.concatenate([moved, irises]))

    def identity_equations(
        self, landmarks: FloatArray, fit: Fit
    ) -> tuple[FloatArray, FloatArray, float]:
        """Returns what a fitted frame says of the identity (Eq. 2).

        Args:
            landmarks: (478, 3) that were fitted, frame coordinates.
            fit: The fit.

        Returns:
            (I, I) gram and (I,) moment, and the mean error of the fit in model units.
        """
        face = np.ascontiguousarray(landmarks[_FACE], np.float64)
        weights = self._trust.weights * self._visibility(fit.pose)
        base = landmark_kernels.move(self._landmarks.mean, self._directions, fit.expression)
        left = _residual(face, fit.pose, base)
        directions, rotation = self._landmarks.identity_directions, fit.pose.rotation
        gram = gram_matrix(directions, rotation, self._trust.axes, weights)
        moment = moment_vector(directions, rotation, self._trust.axes, weights, left)
        return (
            self._trust.precision * gram,
            self._trust.precision * moment,
            self._error(face, fit, base),
        )

    def error(self, landmarks: FloatArray, fit: Fit) -> float:
        """Returns the mean error of a fit to (478, 3) landmarks in the image, model units."""
        face = np.ascontiguousarray(landmarks[_FACE], np.float64)
        base = landmark_kernels.move(self._landmarks.mean, self._directions, fit.expression)
        return self._error(face, fit, base)

    def _error(self, face: FloatArray, fit: Fit, base: FloatArray) -> float:
        own = landmark_kernels.move(base, self._landmarks.identity_directions, self.identity)
        return float(np.linalg.norm(_residual(face, fit.pose, own)[:, :2], axis=1).mean())

    def _fit_pose(self, moved: FloatArray, target: FloatArray, pose: Pose) -> Pose:
        weights = self._trust.pose_weights * self._visibility(pose)
        return refine_pose(pose, moved, target, weights, self.config.pose_depth_weight)

    def _fit_gaze(self, target: FloatArray, pose: Pose) -> FloatArray:
        rest = self._rest
        return solve_gaze(target[_IRISES], rest.eye_centers, rest.iris_offsets, pose)

    def _regularized_gram(self, pose: Pose, weights: FloatArray) -> FloatArray:
        gram = gram_matrix(self._directions, pose.rotation, self._trust.axes, weights)
        gram *= self._trust.precision
        gram[np.diag_indices(len(gram))] += self._prior.precision
        return gram

    def _fit_expression(
        self,
        gram: FloatArray,
        weights: FloatArray,
        residual: FloatArray,
        pose: Pose,
        gaze: FloatArray,
        start: FloatArray,
    ) -> FloatArray:
        # The residual is that of the start, so the gram may be that of a pose a little beside
        # this one: the turns end where they would end with the true one.
        moment = moment_vector(self._directions, pose.rotation, self._trust.axes, weights, residual)
        moment *= self._trust.precision
        moment += gram @ start - self._prior.precision * start
        moment += self._prior.precision * self._prior.expected(gaze)
        return solve_bounded(gram, moment, *self._prior.bounds, start)

    def _visibility(self, pose: Pose) -> FloatArray:
        return landmark_kernels.visibility(self._rest.normals, pose.rotation)


def _residual(target: FloatArray, pose: Pose, moved: FloatArray) -> FloatArray:
    """What ``moved`` leaves unexplained, (468, 3) frame axes, model units."""
    left = landmark_kernels.residual(target, moved, pose.rotation, pose.translation, pose.scale)
    middle = len(left) // 2
    left[:, 2] -= np.partition(left[:, 2], middle)[middle]  # the depth of the whole is unknown
    return left
