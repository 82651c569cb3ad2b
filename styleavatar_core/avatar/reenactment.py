# SPDX-License-Identifier: Apache-2.0
"""From a driver's face to the avatar's: identity from the avatar, the rest from the driver.

Numpy only. Relative to the driver's neutral, which is estimated robustly while the session runs; no
rule about the first frame. What leaves the trained range is held back smoothly, and said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from styleavatar_core.avatar.continuity import Continuity
from styleavatar_core.avatar.driver_gains import DriverGains
from styleavatar_core.avatar.driver_reference import DriverReference, placement_of
from styleavatar_core.avatar.statistics import ParameterStatistics
from styleavatar_core.avatar.trained_range import Reach, TrainedRange
from styleavatar_core.data.frame_clock import FrameClock
from styleavatar_core.errors import InvalidInputError
from styleavatar_core.face3d.arkit import ARKIT_NAMES
from styleavatar_core.face3d.camera import (
    matrix_from_quaternion,
    parameters_in_crop,
    quaternion_from_matrix,
    quaternion_from_rotation_vector,
)
from styleavatar_core.face3d.lip_gap import lip_gap
from styleavatar_core.types import FaceParameters, FloatArray

__all__ = ["DriverGains", "ParameterStatistics", "Retargeted", "Retargeter"]

DriverMode = Literal["same_person", "other_person"]

_TURNED_FROM, _TURNED_TO = 0.25, 0.45  # a driver who always looks aside is taken as frontal

# Of each eye from the middle of both, radians: more is a squint, which a clip may hold for seconds.
_EYES_APART_MAX = 0.1

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
        reach: How far beyond its clip the avatar can go.
    """

    def __init__(
        self,
        statistics: ParameterStatistics,
        mode: DriverMode = "other_person",
        gains: DriverGains | None = None,
        *,
        reach: Reach | None = None,
    ) -> None:
        self._statistics = statistics
        self._mode = mode
        self._gains = gains or DriverGains()
        self._is_arkit = len(statistics.neutral_expression) == len(ARKIT_NAMES)
        self._lips = lip_gap(statistics.model_id)
        self._reference = self._unknown_driver()
        self._clock = FrameClock()
        self._driver: FaceParameters | None = None
        self._is_neutral_awaited = False
        self._is_declared = False  # a neutral, since a face was last lost
        self._continuity = Continuity(self._resting())
        self._range = TrainedRange(statistics, self._lips.expression_max, reach)
        self._was_clamped = False

    def set_neutral(self) -> None:
        """Takes the driver's latest face as the neutral expression and the reference pose.

        Where no face has been seen yet, the first one.
        """
        if self._driver is None:
            self._is_neutral_awaited = True
        else:
            self._declare(self._driver)

    def retarget(self, driver: FaceParameters) -> Retargeted:
        """Maps the next frame.

        A face that is found again after it was lost takes over within a moment, without a jump; so
        does another person's, whose neutral is learned from nothing.

        Args:
            driver: In the driver's frame coordinates; its capture time says how much time passed.

        Raises:
            InvalidInputError: The parameters belong to another face model or are no numbers.
        """
        self._check(driver)
        step_s = self._clock.step(driver.capture_time_s)
        if self._driver is not None and self._driver.person_index != driver.person_index:
            self._meet()
        self._driver = driver
        if self._is_neutral_awaited:
            self._declare(driver)
            self._is_neutral_awaited = False
        if self._mode == "same_person":
            wanted = parameters_in_crop(driver, self._statistics.window)
        else:
            self._reference.see(driver, step_s)
            wanted = self._relative(driver)
        amplified = self._gains.apply(wanted, self._statistics, self._lips.expression_max)
        parameters, self._was_clamped = self._range.hold(amplified)
        return Retargeted(self._continuity.found(parameters, step_s), self._was_clamped)

    def hold(self, capture_time_s: float) -> Retargeted:
        """Answers a frame without a face: the last answer is held, then fades to the neutral.

        Args:
            capture_time_s: When the frame was captured, on the clock of the others.
        """
        self._is_declared = False
        shown = self._continuity.lost(self._clock.step(capture_time_s))
        return Retargeted(shown, self._was_clamped and not self._continuity.is_at_rest)

    def _check(self, driver: FaceParameters) -> None:
        if driver.model_id != self._statistics.model_id:
            raise InvalidInputError(
                f"The driver was tracked with face model '{driver.model_id}', but the avatar needs "
                f"'{self._statistics.model_id}'."
            )
        if len(driver.expression) != len(self._statistics.neutral_expression):
            raise InvalidInputError(
                f"The driver has {len(driver.expression)} expression coefficients; "
                f"the avatar needs {len(self._statistics.neutral_expression)}."
            )
        numbers = (driver.rotation, driver.translation, driver.expression, driver.eye_rotation)
        total = sum(sum(part.ravel().tolist()) for part in numbers)
        if not (0 < driver.scale < np.inf and math.isfinite(total)):
            raise InvalidInputError(
                "The driver's parameters are not finite, or its scale is not positive."
            )

    def _declare(self, driver: FaceParameters) -> None:
        self._reference.declare(driver)
        self._is_declared = True

    def _meet(self) -> None:
        """Begins with another person, who was there before the tracker told them apart."""
        if not self._is_declared:
            self._reference = self._unknown_driver()
            self._continuity.change()

    def _unknown_driver(self) -> DriverReference:
        statistics = self._statistics
        return DriverReference(statistics.neutral_expression, statistics.closed_lip_gap, self._lips)

    def _relative(self, driver: FaceParameters) -> FaceParameters:
        statistics = self._statistics
        assert self._reference.placement is not None
        offset = placement_of(driver) - self._reference.placement
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
        turned = np.linalg.norm(self._reference.rotation)
        share = np.clip((turned - _TURNED_FROM) / (_TURNED_TO - _TURNED_FROM), 0.0, 1.0)
        if share == 0.0:
            return driver.rotation
        back = matrix_from_quaternion(
            quaternion_from_rotation_vector(-share * self._reference.rotation)
        )
        return quaternion_from_matrix(matrix_from_quaternion(driver.rotation) @ back)

    def _relative_expression(self, expression: FloatArray) -> FloatArray:
        rest, neutral = self._statistics.neutral_expression, self._reference.expression
        moved: FloatArray = rest + (expression - neutral)
        for index in _BLINK if self._is_arkit else ():
            # A closed lid is closed for everyone: 1 stays 1, whatever lids are at rest.
            room = max(1.0 - neutral[index], 1e-3)
            if expression[index] > neutral[index]:
                share = (expression[index] - neutral[index]) / room
                moved[index] = rest[index] + (1.0 - rest[index]) * share
        # A closed mouth is closed for everyone, also for an avatar that talked all the time.
        opened = float(self._lips.of(expression)) - self._reference.closed_lip_gap
        gap = self._statistics.closed_lip_gap + opened
        spread = self._statistics.expression.std
        moved = self._lips.with_gap(np.clip(moved, 0.0, self._lips.expression_max), gap, spread)
        # Where one looks is absolute, and the lids follow it.
        if self._is_arkit:
            moved[list(_LOOK)] = expression[list(_LOOK)]
        return moved.astype(np.float32)

    def _resting(self) -> FaceParameters:
        """Returns the avatar's face at rest: lips closed, eyes on one point before it."""
        statistics = self._statistics
        # Each coefficient at its lowest together part the lips of a face that is never at rest.
        neutral = np.clip(statistics.neutral_expression, 0.0, self._lips.expression_max)
        shut = self._lips.with_gap(neutral, statistics.closed_lip_gap, statistics.expression.std)
        eyes = statistics.eye_rotation.mean.reshape(2, 2)
        middle = eyes.mean(axis=0)
        return FaceParameters(
            model_id=statistics.model_id,
            rotation=quaternion_from_rotation_vector(statistics.rotation.mean),
            translation=np.append(statistics.translation.mean, 0.0).astype(np.float32),
            scale=float(statistics.scale.mean[0]),
            expression=shut.astype(np.float32),
            eye_rotation=middle + np.clip(eyes - middle, -_EYES_APART_MAX, _EYES_APART_MAX),
            confidence=0.0,
        )
