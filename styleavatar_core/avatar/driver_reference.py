# SPDX-License-Identifier: Apache-2.0
"""What is neutral for a driver: expression, head turn and place, from the running session.

All of it is measured in time, so that slow and fast cameras behave alike. Each reference goes
towards what a long memory says, as fast as the session is old: it settles within the first seconds,
and later takes tens of them, so that a smile or a look aside stays one. Numpy only.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from styleavatar_core.avatar.statistics import CLOSED_PERCENTILE, NEUTRAL_PERCENTILE
from styleavatar_core.face3d.camera import rotation_vector_from_quaternion
from styleavatar_core.face3d.lip_gap import LipGap
from styleavatar_core.types import FaceParameters, FloatArray

_MEMORY_S, _MEMORY_STEP_S = 120.0, 0.5  # what is kept of the driver
_PLACE_MEMORY_S = 20.0  # who moves the chair is centred again
_TRUST_S = 0.7  # until the driver's own neutral counts half
_QUICKEST_S = 0.3  # in which a reference follows at the very first
_SLOWEST_S, _PLACE_SLOWEST_S = 45.0, 5.0  # and later on
# Heads turned further say little of the neutral expression, and are not what frontal means.
_FRONTAL_RADIANS = 0.45
# Who faced the camera for this share of the time is frontal then, however long they look aside.
_FACING_RADIANS, _FACING_SHARE = 0.25, 0.2
# Lips that never came nearer were never closed: who smiles all the while shows teeth. Of the closed
# lips of 16 people the fit says -0.009 to 0.010.
_CLOSED_LIP_GAP_MAX = 0.02  # decimetres


class DriverReference:
    """Learns what is neutral for one driver.

    Attributes:
        expression: (E,) float64, the neutral expression.
        closed_lip_gap: Distance of closed lips, decimetres.
        rotation: (3,) float64, rotation vector of the head that is taken as frontal.
        placement: (3,) float64 as of ``placement_of``; None before the first face.

    Args:
        neutral_expression: (E,) coefficients to begin with: the avatar's.
        closed_lip_gap: The avatar's.
        lips: Measures lips of the face model.
    """

    def __init__(self, neutral_expression: FloatArray, closed_lip_gap: float, lips: LipGap) -> None:
        self.expression = neutral_expression.astype(np.float64)
        self.closed_lip_gap = closed_lip_gap
        self.rotation = np.zeros(3)
        self.placement: FloatArray | None = None
        self._lips = lips
        self._usual = (self.expression, closed_lip_gap)
        self._targets: tuple[FloatArray, float, FloatArray, FloatArray]
        self._memory: deque[tuple[float, FloatArray]] = deque()
        self._seen_s = 0.0
        self._next_memory_s = 0.0
        self._is_given = False

    def declare(self, driver: FaceParameters) -> None:
        """Takes a face as neutral, for good."""
        self.expression = driver.expression.astype(np.float64)
        self.closed_lip_gap = float(self._lips.of(self.expression))
        self.rotation = rotation_vector_from_quaternion(driver.rotation).astype(np.float64)
        self.placement = placement_of(driver)
        self._is_given = True

    def see(self, driver: FaceParameters, step_s: float) -> None:
        """Learns from the next face, ``step_s`` seconds after the one before."""
        if self._is_given:
            return
        if self.placement is None:
            self.placement = placement_of(driver)
        self._seen_s += step_s
        if self._seen_s >= self._next_memory_s:
            self._remember(driver)
            self._next_memory_s = self._seen_s - self._seen_s % _MEMORY_STEP_S + _MEMORY_STEP_S
        expression, closed, rotation, placement = self._targets
        slow, quick = (
            1 - np.exp(-step_s / np.clip(self._seen_s, _QUICKEST_S, slowest_s))
            for slowest_s in (_SLOWEST_S, _PLACE_SLOWEST_S)
        )
        self.expression = self.expression + slow * (expression - self.expression)
        self.closed_lip_gap += float(slow * (closed - self.closed_lip_gap))
        self.rotation = self.rotation + slow * (rotation - self.rotation)
        self.placement = self.placement + quick * (placement - self.placement)

    def _remember(self, driver: FaceParameters) -> None:
        """Keeps a face, and finds where the references shall go."""
        rotation = rotation_vector_from_quaternion(driver.rotation)
        row = np.concatenate([rotation, placement_of(driver), driver.expression])
        self._memory.append((self._seen_s, row))
        while self._memory[0][0] < self._seen_s - _MEMORY_S:
            self._memory.popleft()
        seen = np.stack([row for _, row in self._memory])
        since_s = self._seen_s - _PLACE_MEMORY_S
        lately = seen[[time_s >= since_s for time_s, _ in self._memory]]
        turns = np.linalg.norm(seen[:, :3], axis=1)
        facing = turns < _FACING_RADIANS
        usual = seen[facing] if facing.mean() >= _FACING_SHARE else seen
        self._targets = (
            *self._neutral_of(seen),
            np.median(usual[:, :3], axis=0),
            np.median(lately[:, 3:6], axis=0),
        )

    def _neutral_of(self, seen: FloatArray) -> tuple[FloatArray, float]:
        """Returns the expression at rest and the gap of closed lips, by what is remembered."""
        frontal = np.linalg.norm(seen[:, :3] - self.rotation, axis=1) < _FRONTAL_RADIANS
        if not frontal.any():
            return self.expression, self.closed_lip_gap
        expressions = seen[frontal, 6:]
        trust = self._seen_s / (self._seen_s + _TRUST_S)
        own = np.percentile(expressions, NEUTRAL_PERCENTILE, axis=0)
        usual, usual_closed = self._usual
        closed = float(np.percentile(self._lips.of(expressions), CLOSED_PERCENTILE))
        closed = min(closed, max(_CLOSED_LIP_GAP_MAX, usual_closed))
        return trust * own + (1 - trust) * usual, trust * closed + (1 - trust) * usual_closed


def placement_of(params: FaceParameters) -> FloatArray:
    """Place in head units and size as a ratio: (x, y, log scale), float64."""
    return np.array(
        [params.translation[0], params.translation[1], np.log(params.scale)], np.float64
    )
