# SPDX-License-Identifier: Apache-2.0
"""What an avatar was trained on bounds what it shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from styleavatar_core.avatar.trained_range import TrainedRange
from tests.fakes.moving_person import AVATAR, BLINK, SMILE, STATISTICS


def test_little_beyond_the_range_is_bent_and_only_much_is_said() -> None:
    spread = STATISTICS.scale
    largest, margin = float(spread.maximum[0]), 0.5 * float(spread.std[0])
    for beyond, is_said in ((0.5 * margin, False), (2 * margin, True)):
        wanted = replace(AVATAR[0], scale=largest + beyond)
        held, clamped = TrainedRange(STATISTICS).hold(wanted)
        assert largest < held.scale < wanted.scale
        assert clamped is is_said


def test_no_coefficient_leaves_the_models_bounds_whatever_was_seen() -> None:
    seen = replace(STATISTICS.expression, minimum=np.full(52, -0.5, np.float32))
    held_back = TrainedRange(replace(STATISTICS, expression=seen))
    for blink in (0.5, 1.4):  # within what was seen, and beyond
        wanted = replace(AVATAR[0], expression=AVATAR[0].expression.copy())
        wanted.expression[[BLINK, SMILE]] = blink, -0.3
        shown = held_back.hold(wanted)[0].expression
        assert shown[BLINK] == min(blink, 1.0)
        assert shown[SMILE] == 0
