# SPDX-License-Identifier: Apache-2.0
"""From a driver's face to the avatar's: identity from the avatar, the rest from the driver.

Numpy only. Relative to the driver's neutral, which is estimated robustly while the session runs; no
rule about the first frame. What leaves the trained range is held back smoothly, and said.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from styleavatar_core.avatar.continuity import Continuity
from styleavatar_core.avatar.driver_gains import DriverGains
from styleavatar_core.avatar.statistics import (
    CLOSED_PERCENTILE,
    NEUTRAL_PERCENTILE,
    NearestSample,
    ParameterStatistics,
)
from styleavatar_core.avatar.trained_range import TrainedRange
from styleavatar_core.errors import InvalidInputError
from styleavatar_core.face3d.arkit import ARKIT_NAMES
from styleavatar_core.face3d.camera import (
    matrix_from_quaternion,
    parameters_in_crop,
    quaternion_from_matrix,
    quaternion_from_rotation_vector,
    rotation_vector_from_quaternion,
)
from styleavatar_core.face3d.lip_gap import lip_gap
from styleavatar_core.types import FaceParameters, FloatArray

__all__ = ["DriverGains", "NearestSample", "ParameterStatistics", "Retargeted", "Retargeter"]

DriverMode = Literal["same_person", "other_person"]

_MEMORY_FRAMES = 600  # kept of the driver, one in _MEMORY_STEP: about a minute at 30 fps
_MEMORY_STEP = 3
_TRUST_FRAMES = 20.0  # frames until the driver's own neutral counts half
_FOLLOW_SHARE = 0.1  # how fast the reference in use follows the estimate, per frame
_FRONTAL_RADIANS = 0.45  # heads turned further say little of the neutral expression
_TURNED_FROM, _TURNED_TO = 0.25, 0.45  # a driver who always looks aside is taken as frontal

_BLINK = tuple(ARKIT_NAMES.index(f"eyeBlink{side}") for side in ("Left", "Right"))
_LOOK = tuple(i for i, name in enumerate(ARKIT_NAMES) if name.startswith("eyeLook"))


@dataclass(frozen=True, slots=True)
class Retargeted:
    """What the avatar shall do.

    Attributes:
        parameters: In the coordinates of the avatar's window.
        clamped: Whether something had to be held back to the trained range.
    """

    parameters: FaceParameters
    clamped: bool


class Retargeter:
    """Maps one driver's parameters to one avatar; keeps the driver's references.

    Args:
        statistics: The avatar's, from its manifest.
        mode: ``same_person``: the driver is the avatar's person before the same camera, so only the
            crop is applied. ``other_person``: relative to the driver's neutral.
        gains: How much of the movement the avatar makes.
    """

    def __init__(
        self,
        statistics: ParameterStatistics,
        mode: DriverMode = "other_person",
        gains: DriverGains | None = None,
    ) -> None:
        self._statistics = statistics
        self._mode = mode
        self._gains = gains or DriverGains()
        self._is_arkit = len(statistics.neutral_expression) == len(ARKIT_NAMES)
        self._memory: deque[FloatArray] = deque(maxlen=_MEMORY_FRAMES // _MEMORY_STEP)
        self._frame_count = 0
        self._lips = lip_gap(statistics.model_id)
        self._neutral = statistics.neutral_expression.astype(np.float64)
        self._closed_lip_gap = statistics.closed_lip_gap
        self._is_neutral_given = False
        self._rotation = np.zeros(3)
        self._placement: FloatArray | None = None  # x, y, log scale of the driver's reference
        self._driver: FaceParameters | None = None
        self._continuity = Continuity(self._resting())
        self._range = TrainedRange(statistics, self._lips.expression_max)
        self._was_clamped = False

    def set_neutral(self) -> None:
        """Takes the driver's latest frame as the neutral expression and the reference pose."""
        if self._driver is None:
            return
        self._neutral = self._driver.expression.astype(np.float64)
        self._closed_lip_gap = float(self._lips.of(self._neutral))
        self._rotation = rotation_vector_from_quaternion(self._driver.rotation).astype(np.float64)
        self._placement = _placement(self._driver)
        self._is_neutral_given = True

    def retarget(self, driver: FaceParameters | None) -> Retargeted:
        """Maps the next frame.

        Args:
            driver: In the driver's frame coordinates; None when the face was lost: the last answer
                is held, then fades to the avatar's neutral. A face that is found again takes over
                within a few frames, without a jump.

        Raises:
            InvalidInputError: The parameters belong to another face model or are no numbers.
        """
        if driver is None:
            shown = self._continuity.lost()
            return Retargeted(shown, self._was_clamped and not self._continuity.is_at_rest)
        self._check(driver)
        self._driver = driver
        if self._mode == "same_person":
            wanted = parameters_in_crop(driver, self._statistics.window)
        else:
            self._remember(driver)
            wanted = self._relative(driver)
        amplified = self._gains.apply(wanted, self._statistics, self._lips.expression_max)
        parameters, self._was_clamped = self._range.hold(amplified)
        return Retargeted(self._continuity.found(parameters), self._was_clamped)

    def _check(self, driver: FaceParameters) -> None:
        if driver.model_id != self._statistics.model_id:
            raise InvalidInputError(
                f"The driver was tracked with face model '{driver.model_id}', but the avatar needs "
                f"'{self._statistics.model_id}'."
            )
        if len(driver.expression) != len(self._neutral):
            raise InvalidInputError(
                f"The driver has {len(driver.expression)} expression coefficients; "
                f"the avatar needs {len(self._neutral)}."
            )
        numbers = (driver.rotation, driver.translation, driver.expression, driver.eye_rotation)
        total = sum(sum(part.ravel().tolist()) for part in numbers)
        if not (0 < driver.scale < np.inf and math.isfinite(total)):
            raise InvalidInputError(
                "The driver's parameters are not finite, or its scale is not positive."
            )

    def _remember(self, driver: FaceParameters) -> None:
        rotation = rotation_vector_from_quaternion(driver.rotation)
        placement = _placement(driver)
        if self._frame_count % _MEMORY_STEP == 0:
            self._memory.append(np.concatenate([rotation, placement, driver.expression]))
        self._frame_count += 1
        if self._placement is None:
            self._placement = placement
        if self._is_neutral_given or self._frame_count % _MEMORY_STEP != 1:
            return
        seen = np.stack(self._memory)
        follow = 1 - (1 - _FOLLOW_SHARE) ** _MEMORY_STEP
        self._placement = self._placement + follow * (np.median(seen[:, 3:6], 0) - self._placement)
        self._rotation = self._rotation + follow * (np.median(seen[:, :3], 0) - self._rotation)
        frontal = np.linalg.norm(seen[:, :3] - self._rotation, axis=1) < _FRONTAL_RADIANS
        if not frontal.any():
            return
        expressions = seen[frontal, 6:]
        count = frontal.sum() * _MEMORY_STEP
        trust = count / (count + _TRUST_FRAMES)
        own = np.percentile(expressions, NEUTRAL_PERCENTILE, axis=0)
        target = trust * own + (1 - trust) * self._statistics.neutral_expression
        self._neutral = self._neutral + follow * (target - self._neutral)
        closed = np.percentile(self._lips.of(expressions), CLOSED_PERCENTILE)
        target_gap = trust * closed + (1 - trust) * self._statistics.closed_lip_gap
        self._closed_lip_gap += follow * (target_gap - self._closed_lip_gap)

    def _relative(self, driver: FaceParameters) -> FaceParameters:
        statistics = self._statistics
        assert self._placement is not None
        offset = _placement(driver) - self._placement
        scale = float(statistics.scale.mean[0] * np.exp(offset[2]))
        x, y = statistics.translation.mean + offset[:2]
        return replace(
            driver,
            rotation=self._relative_rotation(driver),
            translation=np.array([x, y, 0.0], np.float32),
            scale=scale,
            expression=self._relative_expression(driver.expression),
        )

    def _relative_rotation(self, driver: FaceParameters) -> FloatArray:
        turned = np.linalg.norm(self._rotation)
        share = np.clip((turned - _TURNED_FROM) / (_TURNED_TO - _TURNED_FROM), 0.0, 1.0)
        if share == 0.0:
            return driver.rotation
        back = matrix_from_quaternion(quaternion_from_rotation_vector(-share * self._rotation))
        return quaternion_from_matrix(matrix_from_quaternion(driver.rotation) @ back)

    def _relative_expression(self, expression: FloatArray) -> FloatArray:
        rest = self._statistics.neutral_expression
        moved = rest + (expression - self._neutral)
        for index in _BLINK if self._is_arkit else ():
            # A closed lid is closed for everyone: 1 stays 1, whatever lids are at rest.
            room = max(1.0 - self._neutral[index], 1e-3)
            if expression[index] > self._neutral[index]:
                share = (expression[index] - self._neutral[index]) / room
                moved[index] = rest[index] + (1.0 - rest[index]) * share
        # A closed mouth is closed for everyone, also for an avatar that talked all the time.
        opened = float(self._lips.of(expression)) - self._closed_lip_gap
        gap = self._statistics.closed_lip_gap + opened
        spread = self._statistics.expression.std
        moved = self._lips.with_gap(np.clip(moved, 0.0, self._lips.expression_max), gap, spread)
        # Where one looks is absolute, and the lids follow it.
        if self._is_arkit:
            moved[list(_LOOK)] = expression[list(_LOOK)]
        return moved.astype(np.float32)

    def _resting(self) -> FaceParameters:
        statistics = self._statistics
        return FaceParameters(
            model_id=statistics.model_id,
            rotation=quaternion_from_rotation_vector(statistics.rotation.mean),
            translation=np.append(statistics.translation.mean, 0.0).astype(np.float32),
            scale=float(statistics.scale.mean[0]),
            expression=statistics.neutral_expression.copy(),
            eye_rotation=statistics.eye_rotation.mean.reshape(2, 2).copy(),
            confidence=0.0,
        )


def _placement(params: FaceParameters) -> FloatArray:
    """Place in head units and size as a ratio: (x, y, log scale), float64."""
    return np.array(
        [params.translation[0], params.translation[1], np.log(params.scale)], np.float64
    )
