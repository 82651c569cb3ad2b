# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from styleavatar_core.tracking.filtering import OneEuroFilter, ParameterFilter
from styleavatar_core.types import FaceParameters

STEP_S = 1 / 30
STILL = FaceParameters(
    "builtin-3",
    np.array([1, 0, 0, 0], np.float32),
    np.array([0.1, 0.2, 0.0], np.float32),
    0.5,
    np.zeros(52, np.float32),
    np.zeros((2, 2), np.float32),
)


def test_a_still_head_trembles_less() -> None:
    rng = np.random.default_rng(0)
    made, raw, smooth = ParameterFilter(), [], []
    for index in range(90):
        rotation = np.append(1.0, rng.normal(size=3) * 0.003).astype(np.float32)
        params = replace(STILL, rotation=rotation, capture_time_s=index * STEP_S)
        raw.append(rotation[1:])
        smooth.append(made.apply(params).rotation[1:])
    assert np.std(smooth[30:]) < 0.6 * np.std(raw[30:])


def test_a_blink_of_four_frames_survives() -> None:
    made, peak = ParameterFilter(), 0.0
    for index in range(40):
        expression = np.zeros(52, np.float32)
        expression[0] = 0.9 if 20 <= index < 24 else 0.0
        params = replace(STILL, expression=expression, capture_time_s=index * STEP_S)
        peak = max(peak, float(made.apply(params).expression[0]))
    assert peak > 0.8 * 0.9


def test_a_constant_stays_and_the_quaternion_is_a_unit() -> None:
    made = ParameterFilter()
    for index in range(5):
        result = made.apply(replace(STILL, capture_time_s=index * STEP_S))
    assert result.translation == pytest.approx(STILL.translation)
    assert result.scale == pytest.approx(STILL.scale)
    assert np.linalg.norm(result.rotation) == pytest.approx(1.0)


def test_the_past_is_forgotten_at_reset() -> None:
    made = OneEuroFilter(1.0, 0.0)
    made.apply(np.array([0.0]), STEP_S)
    assert made.apply(np.array([10.0]), STEP_S)[0] < 5
    made.reset()
    assert made.apply(np.array([10.0]), STEP_S)[0] == 10


def test_time_that_stands_still_does_no_harm() -> None:
    made = ParameterFilter()
    for _ in range(3):
        result = made.apply(replace(STILL, capture_time_s=0.0))
    assert np.isfinite(result.expression).all()
