# SPDX-License-Identifier: Apache-2.0
"""Fits the face model to landmarks: Eq. 1 and Eq. 2 in turns, eyeballs, identity (paper, Sec. 3.1).

Knows no video and keeps no state but the person's identity; the caller passes the last frame's
result as the start of the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from styleavatar_core.face3d import landmark_groups as groups
from styleavatar_core.face3d.camera import eye_matrix
from styleavatar_core.face3d.model import FaceModel, combine
from styleavatar_core.tracking.solver import (
    Pose,
    normal_equations,
    solve_bounded,
    solve_eye_rotation,
    solve_pose,
    solve_ridge,
)
from styleavatar_core.types import FloatArray

_FACE = slice(0, groups.FACE_LANDMARK_COUNT)


@dataclass(frozen=True, slots=True)
class FitConfig:
    """Numbers of the fit.

    Attributes:
        iteration_count: Turns of Eq. 1 and Eq. 2 per frame.
        depth_weight: Weight of a landmark's depth, against 1 of its place in the image.
        noise: Expected error of one landmark, model units.
        effective_share: Independent share of the landmarks; neighbours err together.
        expression_scale: Usual size of a coefficient; pulls what is not seen towards 0.
        lip_weight: Weight of lips against the rest of the face.
        lid_weight: Weight of lids.
        mobility: Movement (model units) at which a landmark counts half for the pose.
        gaze_limit: Eyeball angle, radians, at which an ``eyeLook`` coefficient is 1.
    """

    iteration_count: int = 3
    depth_weight: float = 0.3
    noise: float = 0.006
    effective_share: float = 0.3
    expression_scale: float = 0.35
    lip_weight: float = 3.0
    lid_weight: float = 4.0
    mobility: float = 0.1
    gaze_limit: float = 0.5


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
        self.model = model
        self.config = config or FitConfig()
        indices = model.landmark_indices
        self._directions = model.expression_basis[indices[_FACE]].astype(np.float64)  # (468, 3, E)
        self._identity_directions = model.identity_basis[indices[_FACE]].astype(np.float64)
        self._weights = self._landmark_weights()
        movement = np.sqrt((self._directions**2).sum(axis=(1, 2)))
        self._pose_weights = 1 / (1 + (movement / self.config.mobility) ** 2)
        self._gaze_columns = _gaze_columns(model.expression_names)
        self.identity = np.zeros(model.identity_basis.shape[-1])
        self.set_identity(self.identity if identity is None else identity)

    def set_identity(self, identity: FloatArray) -> None:
        """Fixes who is fitted from now on; (I,) coefficients."""
        self.identity = np.asarray(identity, np.float64)
        neutral = self.model.neutral(identity).astype(np.float64)
        points = neutral[self.model.landmark_indices]
        self._rest = points[_FACE]
        self._normals = _landmark_normals(self.model, neutral)
        self._eyes = [
            (neutral[start:stop].mean(axis=0), list(iris))
            for (start, stop), iris in zip(
                self.model.eye_vertices, (groups.LEFT_IRIS, groups.RIGHT_IRIS), strict=True
            )
        ]
        self._iris_offsets = [points[iris] - center for center, iris in self._eyes]

    def fit(self, landmarks: FloatArray, start: Fit | None = None) -> Fit:
        """Fits pose, gaze and expression to one frame.

        Args:
            landmarks: (478, 3) in frame coordinates, z on the scale of x.
            start: The last frame's fit, if there is one.
        """
        target = np.asarray(landmarks, np.float64)
        expression = np.zeros(self._directions.shape[-1]) if start is None else start.expression
        pose = start.pose if start else solve_pose(self._rest, target[_FACE], self._pose_weights)
        gaze = np.zeros((2, 2))
        turns = self.config.iteration_count + (0 if start else 3)
        for turn in range(turns):
            moved = self._rest + combine(self._directions, expression)
            pose = self._fit_pose(moved, target[_FACE], pose)
            if turn in (0, turns - 1):  # the pose hardly moves in between
                gaze = self._fit_gaze(target, pose)
            expression = self._fit_expression(target[_FACE], pose, gaze, expression)
        moved = self._rest + combine(self._directions, expression)
        return Fit(self._fit_pose(moved, target[_FACE], pose), expression, gaze)

    def fit_identity(self, frames: Sequence[FloatArray], turn_count: int = 4) -> list[Fit]:
        """Solves Eq. 2 for one identity shared by several frames, and fixes it.

        Frames whose residual is far above the others' count less.

        Args:
            frames: (478, 3) landmarks each, frame coordinates.
            turn_count: Turns of fitting frames and identity.

        Returns:
            The fits of the frames.
        """
        fits: list[Fit] = []
        for _ in range(turn_count):
            fits = [self.fit(frame) for frame in frames]
            self.set_identity(self._solve_identity(frames, fits))
        return [self.fit(frame) for frame in frames]

    def predicted(self, fit: Fit) -> FloatArray:
        """Returns where the fit puts the 478 landmarks, (478, 3) float64, frame coordinates."""
        moved = self._rest + combine(self._directions, fit.expression)
        irises = np.zeros((10, 3))
        for (center, iris), offsets, angles in zip(
            self._eyes, self._iris_offsets, fit.eye_rotation, strict=True
        ):
            turned = offsets @ eye_matrix(float(angles[0]), float(angles[1])).T + center
            irises[np.array(iris) - groups.FACE_LANDMARK_COUNT] = turned
        return fit.pose.apply(np.concatenate([moved, irises]))

    def _fit_pose(self, moved: FloatArray, target: FloatArray, pose: Pose) -> Pose:
        # Depth counts less than the place in the image. Eq. 1 has equal weights; moving the wanted
        # depth towards the predicted one gives the weighted solution over the turns.
        predicted = pose.apply(moved)[:, 2]
        offset = self._pose_weights @ (target[:, 2] - predicted) / self._pose_weights.sum()
        wanted = target.copy()
        wanted[:, 2] = predicted + self.config.depth_weight * (target[:, 2] - predicted - offset)
        return solve_pose(moved, wanted, self._pose_weights * self._visibility(pose))

    def _fit_gaze(self, target: FloatArray, pose: Pose) -> FloatArray:
        gaze = np.zeros((2, 2))
        for row, ((center, iris), offsets) in enumerate(
            zip(self._eyes, self._iris_offsets, strict=True)
        ):
            place = pose.rotation @ center + pose.translation
            seen = (target[iris] / pose.scale - place)[:, :2]
            gaze[row] = solve_eye_rotation(offsets, seen, pose.rotation)
        return gaze

    def _fit_expression(
        self, target: FloatArray, pose: Pose, gaze: FloatArray, start: FloatArray
    ) -> FloatArray:
        config = self.config
        weights = self._weights * self._visibility(pose)
        gram, moment = self._equations(self._directions, target, pose, weights, self._rest)
        precision = config.effective_share / config.noise**2
        count = len(moment)
        gram = precision * gram + np.eye(count) / config.expression_scale**2
        lower, upper = np.zeros(count), np.ones(count)
        for column, eye, axis, sign in self._gaze_columns:
            known = np.clip(sign * gaze[eye, axis] / config.gaze_limit, 0.0, 1.0)
            lower[column] = upper[column] = known
        return solve_bounded(gram, precision * moment, lower, upper, start)

    def _solve_identity(self, frames: Sequence[FloatArray], fits: Sequence[Fit]) -> FloatArray:
        count = self._identity_directions.shape[-1]
        mean = self.model.mean_shape[self.model.landmark_indices[_FACE]].astype(np.float64)
        errors = [
            np.linalg.norm((self.predicted(fit) - frame)[_FACE, :2], axis=1).mean() / fit.pose.scale
            for frame, fit in zip(frames, fits, strict=True)
        ]
        trust = 1 / (1 + (np.array(errors) / (2 * np.median(errors))) ** 4)
        gram, moment = np.zeros((count, count)), np.zeros(count)
        for frame, fit, share in zip(frames, fits, trust, strict=True):
            weights = self._weights * self._visibility(fit.pose)
            base = mean + combine(self._directions, fit.expression)
            part = self._equations(self._identity_directions, frame[_FACE], fit.pose, weights, base)
            gram += share * part[0]
            moment += share * part[1]
        # Frames of one clip err together: they count as few, however many they are.
        precision = self.config.effective_share / self.config.noise**2
        precision *= min(trust.sum(), 4.0) / trust.sum()
        return solve_ridge(precision * gram + np.eye(count), precision * moment)

    def _equations(
        self,
        directions: FloatArray,
        target: FloatArray,
        pose: Pose,
        weights: FloatArray,
        base: FloatArray,
    ) -> tuple[FloatArray, FloatArray]:
        """Returns the normal equations of Eq. 2: (N, N) gram and (N,) moment."""
        axes = np.array([1.0, 1.0, self.config.depth_weight * 0.3])
        left = target / pose.scale - pose.translation - base @ pose.rotation.T
        left[:, 2] -= np.median(left[:, 2])
        return normal_equations(directions, pose.rotation, axes, weights, left)

    def _visibility(self, pose: Pose) -> FloatArray:
        """Weights in [0.05, 1]: landmarks that face away are guessed by the detector."""
        toward = -(self._normals @ pose.rotation[2])
        return 0.05 + 0.95 * np.clip((toward + 0.3) / 0.6, 0.0, 1.0)

    def _landmark_weights(self) -> FloatArray:
        weights = np.ones(groups.FACE_LANDMARK_COUNT)
        weights[list(groups.LIPS)] = self.config.lip_weight
        weights[list(groups.LIDS)] = self.config.lid_weight
        return weights


def _landmark_normals(model: FaceModel, neutral: FloatArray) -> FloatArray:
    """Outward unit normals of the 468 face landmarks, (468, 3) float64."""
    a, b, c = (neutral[model.faces[:, k]] for k in range(3))
    face_normals = np.cross(c - a, b - a)
    normals = np.zeros_like(neutral)
    for corner in range(3):
        np.add.at(normals, model.faces[:, corner], face_normals)
    normals = normals[model.landmark_indices[_FACE]]
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def _gaze_columns(names: Sequence[str]) -> list[tuple[int, int, int, float]]:
    """Expression columns that the eyeballs decide: (column, eye, axis, sign) each."""
    rules = (
        ("eyeLookDownLeft", 0, 0, 1.0),
        ("eyeLookUpLeft", 0, 0, -1.0),
        ("eyeLookOutLeft", 0, 1, 1.0),
        ("eyeLookInLeft", 0, 1, -1.0),
        ("eyeLookDownRight", 1, 0, 1.0),
        ("eyeLookUpRight", 1, 0, -1.0),
        ("eyeLookInRight", 1, 1, 1.0),
        ("eyeLookOutRight", 1, 1, -1.0),
    )
    return [(names.index(n), eye, axis, s) for n, eye, axis, s in rules if n in names]
