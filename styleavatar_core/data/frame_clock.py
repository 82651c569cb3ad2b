# SPDX-License-Identifier: Apache-2.0
"""Time between the frames of one stream, from what their caller says of it."""

from __future__ import annotations

_USUAL_STEP_S = 1 / 30
# A stream that paused goes on where it was: what depends on time does not run through the pause.
_LONGEST_STEP_S = 1.0


class FrameClock:
    """Tells how much time each frame stands for, also for callers who do not say."""

    def __init__(self) -> None:
        self._last_time_s: float | None = None

    def step(self, capture_time_s: float) -> float:
        """Returns the seconds from the frame before: a usual rate's where its time does not grow.

        Args:
            capture_time_s: Of the next frame, seconds on any clock; 0 is said by who says nothing.

        Returns:
            Seconds, more than 0 and at most 1.
        """
        if capture_time_s == 0.0:
            return _USUAL_STEP_S
        last, self._last_time_s = self._last_time_s, capture_time_s
        if last is None or not capture_time_s > last:
            return _USUAL_STEP_S
        return min(capture_time_s - last, _LONGEST_STEP_S)
