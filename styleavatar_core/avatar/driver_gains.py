# SPDX-License-Identifier: Apache-2.0
"""How much of a driver's movement an avatar makes. Numpy only."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from styleavatar_core.avatar.statistics import ParameterStatistics
from styleavatar_core.errors import InvalidInputError
from styleavatar_core.face3d.arkit import ARKIT_NAMES
from styleavatar_core.face3d.camera import (
    quaternion_from_rotation_vector,
    rotation_vector_from_quaternion,
)
from styleavatar_core.types import FaceParameters

GAIN_MAX = 3.0


def _columns(*starts: str) -> list[int]:
    return [index for index, name in enumerate(ARKIT_NAMES) if name.startswith(starts)]


_GAZE, _BLINK, _MOUTH = _columns("eyeLook"), _columns("eyeBlink"), _columns("jaw", "mouth")


@dataclass(frozen=True, slots=True)
class DriverGains:
    """How much of the driver's movement the avatar makes; 1 is all of it, 0 none, at most 3.

    Attributes:
        gaze: Of the eyeballs and the lids that follow them.
        blink: Of closing lids, away from rest.
        mouth: Of jaw and mouth, away from rest.
        head: Of rotation, away from the avatar's usual pose.

    Raises:
        InvalidInputError: A gain is out of its range.
    """

    gaze: float = 1.0
    blink: float = 1.0
    mouth: float = 1.0
    head: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0.0 <= value <= GAIN_MAX:
                raise InvalidInputError(
                    f"The gain of {field.name} is {value}; it must be from 0 to {GAIN_MAX:g}."
                )

    def apply(
        self,
        params: FaceParameters,
        statistics: ParameterStatistics,
        expression_max: float = 1.0,
    ) -> FaceParameters:
        """Amplifies or weakens movement.

        Args:
            params: In the coordinates of the avatar's window.
            statistics: Say what is rest.
            expression_max: Largest coefficient of the face model.

        Returns:
            The parameters; expression stays within the model's bounds.
        """
        if self == _UNCHANGED:
            return params
        expression = params.expression.copy()
        rest = statistics.neutral_expression
        # Lids and mouth have gains where the coefficients have names.
        if len(expression) == len(ARKIT_NAMES):
            expression[_GAZE] *= self.gaze
            for columns, gain in ((_BLINK, self.blink), (_MOUTH, self.mouth)):
                expression[columns] = rest[columns] + gain * (expression[columns] - rest[columns])
        usual = statistics.rotation.mean
        turned = usual + self.head * (rotation_vector_from_quaternion(params.rotation) - usual)
        # Half a turn on, a rotation would be one the other way.
        turned *= min(1.0, _TURN_MAX / max(float(np.linalg.norm(turned)), 1e-9))
        return replace(
            params,
            rotation=quaternion_from_rotation_vector(turned),
            expression=np.clip(expression, 0.0, expression_max).astype(np.float32),
            eye_rotation=(params.eye_rotation * self.gaze).astype(np.float32),
        )


_TURN_MAX = 3.0  # radians
_UNCHANGED = DriverGains()
