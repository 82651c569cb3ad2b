# SPDX-License-Identifier: Apache-2.0
"""Temporal filtering of parameters for live use: One-Euro, with little delay in motion."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from styleavatar_core.data.frame_clock import FrameClock
from styleavatar_core.types import FaceParameters, FloatArray

_SPEED_CUTOFF_HZ = 1.0


@dataclass(slots=True)
class OneEuroFilter:
    """A low-pass filter whose cut-off grows with speed, on a vector.

    What moves evenly is followed ``1 / (2 pi cut-off)`` late, whatever the rate of the frames: the
    slowest motion most, by ``1 / (2 pi min_cutoff_hz)``.

    Attributes:
        min_cutoff_hz: Cut-off at rest; lower is steadier.
        speed_gain: How much the cut-off grows, Hz per unit of speed; higher is faster.
    """

    min_cutoff_hz: float
    speed_gain: float
    _value: FloatArray | None = field(default=None, init=False)
    _speed: FloatArray | None = field(default=None, init=False)

    def apply(self, value: FloatArray, step_s: float) -> FloatArray:
        """Filters the next value, (N,), ``step_s`` seconds after the last."""
        value = np.asarray(value, np.float64)
        if self._value is None or self._speed is None:
            self._value, self._speed = value, np.zeros_like(value)
            return value
        speed = (value - self._value) / step_s
        self._speed = self._speed + _share(_SPEED_CUTOFF_HZ, step_s) * (speed - self._speed)
        cutoff = self.min_cutoff_hz + self.speed_gain * np.abs(self._speed)
        self._value = self._value + _share(cutoff, step_s) * (value - self._value)
        return self._value

    def reset(self) -> None:
        """Forgets the past."""
        self._value = self._speed = None


class ParameterFilter:
    """Filters face parameters in time order; each kind with its own numbers.

    Lids and lips open and close within a few frames, so expression has a high cut-off at rest and
    lets speed through; the head is what must not tremble. The slowest motion comes 64 ms late
    (head), 40 ms (eyeballs) or 32 ms (expression): 1.9, 1.2 and 1 of 30 frames a second; all other
    motion less.
    """

    def __init__(self) -> None:
        self._rotation = OneEuroFilter(2.5, 12.0)
        self._placement = OneEuroFilter(2.5, 30.0)
        self._expression = OneEuroFilter(5.0, 6.0)
        self._eyes = OneEuroFilter(4.0, 6.0)
        self._clock = FrameClock()

    def apply(self, params: FaceParameters) -> FaceParameters:
        """Returns the filtered parameters."""
        step_s = self._clock.step(params.capture_time_s)
        rotation = self._rotation.apply(params.rotation, step_s)
        # Where the head is in the image is what one sees, so that is what is filtered.
        placement = np.append(params.translation * params.scale, params.scale)
        *place, scale = self._placement.apply(placement, step_s)
        return replace(
            params,
            rotation=(rotation / np.linalg.norm(rotation)).astype(np.float32),
            translation=(np.array(place) / scale).astype(np.float32),
            scale=float(scale),
            expression=self._expression.apply(params.expression, step_s).astype(np.float32),
            eye_rotation=self._eyes.apply(params.eye_rotation.ravel(), step_s)
            .reshape(2, 2)
            .astype(np.float32),
        )

    def reset(self) -> None:
        """Forgets the past, as after a lost face."""
        for part in (self._rotation, self._placement, self._expression, self._eyes):
            part.reset()


def _share(cutoff_hz: FloatArray | float, step_s: float) -> FloatArray | float:
    return 1 / (1 + 1 / (2 * np.pi * cutoff_hz * step_s))
