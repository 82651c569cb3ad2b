# SPDX-License-Identifier: Apache-2.0
"""What a fit knows before it sees a frame: how far each landmark is to be trusted, how faces look.

Lids follow the eyeballs, large coefficients are rare, and landmarks that move by themselves say
little of the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from styleavatar_core.face3d import landmark_groups as groups
from styleavatar_core.face3d.model import FaceModel
from styleavatar_core.types import FloatArray


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


class LandmarkTrust:
    """How far the detector's landmarks are to be trusted.

    Args:
        config: Numbers of the fit.
        directions: (468, 3, E) float64, how expression moves the landmarks, model units.

    Attributes:
        axes: (3,) weights of x, y and depth in expression and identity.
        precision: Of one landmark, 1 / model units squared.
        weights: (468,) in expression and identity.
        pose_weights: (468,) in the pose: the less, the more a landmark moves by itself.
    """

    def __init__(self, config: FitConfig, directions: FloatArray) -> None:
        self.axes = np.array([1.0, 1.0, config.shape_depth_weight])
        self.precision = config.effective_share / config.noise**2
        self.weights = np.ones(groups.FACE_LANDMARK_COUNT)
        self.weights[list(groups.LIPS)] = config.lip_weight
        self.weights[list(groups.LIDS)] = config.lid_weight
        movement = np.sqrt((directions**2).sum(axis=(1, 2)))
        self.pose_weights: FloatArray = 1 / (1 + (movement / config.mobility) ** 2)
        self.pose_weights[list(groups.FOREHEAD)] *= config.forehead_weight


class ExpressionPrior:
    """Which expressions are likely, given where the eyes look.

    Args:
        config: Numbers of the fit.
        model: The face model.

    Attributes:
        bounds: (E,) least and (E,) largest coefficients.
        precision: (E,) 1 / variance of each coefficient around what is expected.
    """

    def __init__(self, config: FitConfig, model: FaceModel) -> None:
        count = len(model.expression_names)
        self._from_gaze = _gaze_signs(model.expression_names) / config.gaze_limit
        self.bounds = np.zeros(count), np.full(count, model.expression_max)
        self.precision = np.full(count, 1 / config.expression_scale**2)
        self.precision[self._from_gaze.any(axis=1)] = 1 / config.gaze_spread**2

    def expected(self, gaze: FloatArray) -> FloatArray:
        """Returns the likeliest coefficients, (E,) in [0, 1], for eyeballs (2, 2), radians."""
        return np.clip(self._from_gaze @ gaze.ravel(), 0.0, 1.0)


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
