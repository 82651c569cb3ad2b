# SPDX-License-Identifier: Apache-2.0
"""A lost face, and the way to one that is found again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from styleavatar_core.avatar.continuity import Continuity
from styleavatar_core.face3d.camera import (
    quaternion_from_rotation_vector,
    rotation_vector_from_quaternion,
)
from styleavatar_core.types import FaceParameters

REST = FaceParameters(
    "builtin-3",
    np.array([1, 0, 0, 0], np.float32),
    np.zeros(3, np.float32),
    0.5,
    np.zeros(52, np.float32),
    np.zeros((2, 2), np.float32),
)


def test_the_way_to_a_face_is_the_short_one_whichever_of_two_quaternions_it_has() -> None:
    turned = replace(REST, rotation=-quaternion_from_rotation_vector(np.array([0.0, 0.4, 0.0])))
    continuity = Continuity(REST)
    continuity.lost(0.05)
    shown = [continuity.found(turned, 0.05).rotation for _ in range(7)]
    yaws = [rotation_vector_from_quaternion(rotation)[1] for rotation in shown]
    assert (np.diff([0.0, *yaws]) > -1e-6).all()
    assert yaws[2] == pytest.approx(0.2, abs=0.01)  # half of the way after half of the time
    assert yaws[-1] == pytest.approx(0.4)


def test_however_slow_a_stream_is_the_way_to_a_face_has_frames() -> None:
    continuity, smiling = Continuity(REST), replace(REST, expression=np.ones(52, np.float32))
    continuity.lost(1.0)
    shown = [continuity.found(smiling, 1.0).expression[0] for _ in range(3)]
    assert 0 < shown[0] < shown[1] < shown[2] == 1


def test_a_held_face_says_that_nobody_is_seen_and_when_somebody_was() -> None:
    continuity = Continuity(REST)
    continuity.found(replace(REST, confidence=1.0, frame_index=7, capture_time_s=2.0), 0.04)
    held = continuity.lost(0.04)
    assert (held.confidence, held.frame_index, held.capture_time_s) == (0.0, 7, 2.0)
