# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from styleavatar_core.data.frame_clock import FrameClock

USUAL_S = 1 / 30


@pytest.mark.parametrize(
    ("times_s", "steps_s"),
    [
        ([0.1, 0.2, 0.45], [USUAL_S, 0.1, 0.25]),
        ([0.0, 0.0, 0.0], [USUAL_S] * 3),  # a caller who says no times
        ([5.0, 5.1, 0.0, 5.2], [USUAL_S, 0.1, USUAL_S, 0.1]),  # who leaves one out
        ([5.0, 5.0, 4.0, 4.1], [USUAL_S, USUAL_S, USUAL_S, 0.1]),  # whose clock was set back
        ([5.0, 3605.0, 3605.2], [USUAL_S, 1.0, 0.2]),  # who had a break
    ],
)
def test_steps_are_those_of_the_capture_times_where_they_make_sense(
    times_s: list[float], steps_s: list[float]
) -> None:
    clock = FrameClock()
    assert [clock.step(time_s) for time_s in times_s] == pytest.approx(steps_s)
