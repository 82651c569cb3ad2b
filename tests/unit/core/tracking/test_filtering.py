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


def test_after_a_lost_face_nothing_of_it_is_in_the_next() -> None:
    made = ParameterFilter()
    made.apply(STILL)
    made.reset()
    found = FaceParameters(
        "builtin-3",
        np.array([0, 1, 0, 0], np.float32),
        np.array([0.4, -0.2, 0.0], np.float32),
        0.9,
        np.full(52, 0.7, np.float32),
        np.full((2, 2), 0.3, np.float32),
        capture_time_s=STEP_S,
    )
    shown = made.apply(found)
    for name in ("rotation", "translation", "scale", "expression", "eye_rotation"):
        assert getattr(shown, name) == pytest.approx(getattr(found, name)), name


def test_time_that_stands_still_does_no_harm() -> None:
    made = ParameterFilter()
    for _ in range(3):
        result = made.apply(replace(STILL, capture_time_s=0.0))
    assert np.isfinite(result.expression).all()


def lateness_s(series: list[float], slope: float, fps: int) -> float:
    """How far behind a ramp its filtered course is at last."""
    return len(series) / fps - series[-1] / slope


@pytest.mark.parametrize("fps", [10, 30, 60])
@pytest.mark.parametrize("slope", [0.002, 0.02, 0.2])  # radians, frame units, coefficients a second
def test_the_delay_of_slow_and_fast_ramps_is_bounded_at_every_rate(fps: int, slope: float) -> None:
    made = ParameterFilter()
    head, place, eyes, jaw = [], [], [], []
    for index in range(1, 4 * fps + 1):
        value = slope * index / fps
        params = replace(
            STILL,
            rotation=np.array([np.cos(value / 2), np.sin(value / 2), 0, 0], np.float32),
            translation=np.array([0, value / STILL.scale, 0], np.float32),
            expression=np.full(52, value, np.float32),
            eye_rotation=np.full((2, 2), value, np.float32),
            capture_time_s=index / fps,
        )
        shown = made.apply(params)
        head.append(2 * float(np.arcsin(shown.rotation[1])))
        place.append(float(shown.translation[1]) * shown.scale)
        eyes.append(float(shown.eye_rotation[0, 0]))
        jaw.append(float(shown.expression[0]))
    for series, limit_s in ((head, 0.064), (place, 0.064), (eyes, 0.040), (jaw, 0.032)):
        late_s = lateness_s(series, slope, fps)
        assert 0.0 < late_s < limit_s
        if slope == 0.002:  # the bound is not far from the truth
            assert late_s > 0.8 * limit_s


def test_the_stated_bound_is_that_of_the_slowest_ramp() -> None:
    made = OneEuroFilter(2.0, 0.0)
    course = [float(made.apply(np.array([index * STEP_S]), STEP_S)[0]) for index in range(1, 200)]
    assert lateness_s(course, 1.0, 30) == pytest.approx(1 / (2 * np.pi * 2.0), rel=1e-3)
