# SPDX-License-Identifier: Apache-2.0
"""Fits the face model to landmarks: Eq. 1 and Eq. 2 in turns, and eyeballs (paper, Sec. 3.1).

Knows no video and keeps no state but the person's identity; the caller passes the last frame's
result as the start of the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from styleavatar_core.face3d import landmark_groups as groups
from styleavatar_core.face3d.camera import eye_matrix
from styleavatar_core.face3d.model import FaceModel
from styleavatar_core.tracking import kernels
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
class FitConfig:
    """Numbers of the fit.

    Attributes:
        iteration_count: Turns of Eq. 1 and Eq. 2 per frame.
        pose_depth_weight: Weight of a landmark's depth in the pose, against 1 of its place in the
            image: the detector's depth follows a turning head only in part.
        shape_depth_weight: The same in the expression and the identity.
        noise: Expected error of one landmark, model units.
        effective_share: Independent share of the landmarks; neighbours err together.
        expression_scale: Usual size of a coefficient; pulls what is not seen towards 0.
        lip_weight: Weight of lips against the rest of the face.
        lid_weight: Weight of lids.
        mobility: Movement (model units) at which a landmark counts half for the pose.
        forehead_weight: Weight of the forehead in the pose. Where a head nods, the detector's
            points there move as if they lay farther back than where it turns.
        gaze_limit: Eyeball angle, radians, at which an ``eyeLook`` coefficient is 1.
        gaze_spread: How far an ``eyeLook`` coefficient usually is from what the eyeball says: lids
            follow the gaze, but not slavishly, and an eyeball's place is a guess.
    """

    iteration_count: int = 3
    pose_depth_weight: float = 0.02
    shape_depth_weight: float = 0.03
    noise: float = 0.006
    effective_share: float = 0.3
    expression_scale: float = 0.35
    lip_weight: float = 3.0
    lid_weight: float = 4.0
    mobility: float = 0.1
    forehead_weight: float = 0.4
    gaze_limit: float = 0.5
    gaze_spread: float = 0.15


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
        self._axes = np.array([1.0, 1.0, self.config.shape_depth_weight])
        self._precision = self.config.effective_share / self.config.noise**2
        self._weights = self._landmark_weights()
        self._pose_weights = self._steadiness()
        self._from_gaze = _gaze_signs(model.expression_names) / self.config.gaze_limit
        count = len(model.expression_names)
        self._bounds = np.zeros(count), np.full(count, model.expression_max)
        self._prior_precision = np.full(count, 1 / self.config.expression_scale**2)
        follows = self._from_gaze.any(axis=1)
        self._prior_precision[follows] = 1 / self.config.gaze_spread**2
        self.identity = np.zeros(model.identity_basis.shape[-1])
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
        moved = kernels.move(self._rest.points, self._directions, expression)
        # In closed form: where the head was before has no say, however it has jumped.
        pose = solve_pose(moved, face, self._pose_weights)
        gaze, gram = np.zeros((2, 2)), None
        turns = self.config.iteration_count + (0 if start else _COLD_TURN_COUNT)
        for turn in range(turns):
            pose = self._fit_pose(moved, face, pose)
            if turn in (0, turns - 1):  # the pose hardly moves in between
                gaze = self._fit_gaze(target, pose)
            weights = self._weights * self._visibility(pose)
            if gram is None or start is None:
                gram = self._regularized_gram(pose, weights)
            residual = _residual(face, pose, moved)
            expression = self._fit_expression(gram, weights, residual, pose, gaze, expression)
            moved = kernels.move(self._rest.points, self._directions, expression)
        return Fit(self._fit_pose(moved, face, pose), expression, gaze)

    def predicted(self, fit: Fit) -> FloatArray:
        """Returns where the fit puts the 478 landmarks, (478, 3) float64, frame coordinates."""
        rest = self._rest
        irises = np.zeros((10, 3))
        eyes = zip(rest.eye_centers, _IRISES, rest.iris_offsets, fit.eye_rotation, strict=True)
        for center, iris, offsets, (pitch, yaw) in eyes:
            turned = offsets @ eye_matrix(float(pitch), float(yaw)).T + center
            irises[iris - groups.FACE_LANDMARK_COUNT] = turned
        moved = kernels.move(rest.points, self._directions, fit.expression)
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
        weights = self._weights * self._visibility(fit.pose)
        base = kernels.move(self._landmarks.mean, self._directions, fit.expression)
        left = _residual(face, fit.pose, base)
        directions, rotation = self._landmarks.identity_directions, fit.pose.rotation
        gram = gram_matrix(directions, rotation, self._axes, weights)
        moment = moment_vector(directions, rotation, self._axes, weights, left)
        return self._precision * gram, self._precision * moment, self._error(face, fit, base)

    def error(self, landmarks: FloatArray, fit: Fit) -> float:
        """Returns the mean error of a fit to (478, 3) landmarks in the image, model units."""
        face = np.ascontiguousarray(landmarks[_FACE], np.float64)
        base = kernels.move(self._landmarks.mean, self._directions, fit.expression)
        return self._error(face, fit, base)

    def _error(self, face: FloatArray, fit: Fit, base: FloatArray) -> float:
        own = kernels.move(base, self._landmarks.identity_directions, self.identity)
        return float(np.linalg.norm(_residual(face, fit.pose, own)[:, :2], axis=1).mean())

    def _fit_pose(self, moved: FloatArray, target: FloatArray, pose: Pose) -> Pose:
        weights = self._pose_weights * self._visibility(pose)
        return refine_pose(pose, moved, target, weights, self.config.pose_depth_weight)

    def _fit_gaze(self, target: FloatArray, pose: Pose) -> FloatArray:
        rest = self._rest
        return solve_gaze(target[_IRISES], rest.eye_centers, rest.iris_offsets, pose)

    def _regularized_gram(self, pose: Pose, weights: FloatArray) -> FloatArray:
        gram = gram_matrix(self._directions, pose.rotation, self._axes, weights)
        gram *= self._precision
        gram[np.diag_indices(len(gram))] += self._prior_precision
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
        moment = moment_vector(self._directions, pose.rotation, self._axes, weights, residual)
        moment *= self._precision
        moment += gram @ start - self._prior_precision * start
        moment += self._prior_precision * np.clip(self._from_gaze @ gaze.ravel(), 0.0, 1.0)
        return solve_bounded(gram, moment, *self._bounds, start)

    def _visibility(self, pose: Pose) -> FloatArray:
        return kernels.visibility(self._rest.normals, pose.rotation)

    def _steadiness(self) -> FloatArray:
        """How well each landmark tells the pose, (468,): the less, the more it moves by itself."""
        movement = np.sqrt((self._directions**2).sum(axis=(1, 2)))
        weights: FloatArray = 1 / (1 + (movement / self.config.mobility) ** 2)
        weights[list(groups.FOREHEAD)] *= self.config.forehead_weight
        return weights

    def _landmark_weights(self) -> FloatArray:
        weights = np.ones(groups.FACE_LANDMARK_COUNT)
        weights[list(groups.LIPS)] = self.config.lip_weight
        weights[list(groups.LIDS)] = self.config.lid_weight
        return weights


def _residual(target: FloatArray, pose: Pose, moved: FloatArray) -> FloatArray:
    """What ``moved`` leaves unexplained, (468, 3) frame axes, model units."""
    left = kernels.residual(target, moved, pose.rotation, pose.translation, pose.scale)
    middle = len(left) // 2
    left[:, 2] -= np.partition(left[:, 2], middle)[middle]  # the depth of the whole is unknown
    return left


def _gaze_signs(names: Sequence[str]) -> FloatArray:
    """How expression follows the eyeballs, (E, 4): left pitch, left yaw, right pitch, right yaw."""
    rules = (
        ("eyeLookDownLeft", 0, 1.0),
        ("eyeLookUpLeft", 0, -1.0),
        ("eyeLookOutLeft", 1, 1.0),
        ("eyeLookInLeft", 1, -1.0),
        ("eyeLookDownRight", 2, 1.0),
        ("eyeLookUpRight", 2, -1.0),
        ("eyeLookInRight", 3, 1.0),
        ("eyeLookOutRight", 3, -1.0),
    )
    signs = np.zeros((len(names), 4))
    for name, column, sign in rules:
        if name in names:
            signs[names.index(name), column] = sign
    return signs
