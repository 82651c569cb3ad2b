# SPDX-License-Identifier: Apache-2.0
"""What a driver does for long is not taken for how they are, at any rate of the camera."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from styleavatar_core.avatar.reenactment import ParameterStatistics, Retargeter
from styleavatar_core.avatar.statistics import measure_closed_lip_gap
from styleavatar_core.face3d.arkit import ARKIT_INDEX
from styleavatar_core.face3d.camera import (
    quaternion_from_rotation_vector,
    rotation_vector_from_quaternion,
)
from styleavatar_core.types import CropBox, FaceParameters

JAW, SMILE = ARKIT_INDEX["jawOpen"], ARKIT_INDEX["mouthSmileLeft"]
RATES = (10, 30, 60)


def face(
    time_s: float, *, yaw: float = 0.0, smile: float = 0.0, rest: float = 0.1, scale: float = 0.4
) -> FaceParameters:
    """A face that talks now and then and moves a little."""
    expression = np.full(52, rest, np.float32)
    expression[JAW] = rest + 0.3 * max(0.0, np.sin(5 * time_s))
    expression[SMILE] += smile
    rotation = np.array([0.04 * np.sin(time_s), yaw + 0.05 * np.sin(0.7 * time_s), 0.0])
    return FaceParameters(
        "builtin-3",
        quaternion_from_rotation_vector(rotation),
        np.zeros(3, np.float32),
        scale,
        expression,
        np.zeros((2, 2), np.float32),
        capture_time_s=time_s,
    )


AVATAR = [
    face(k / 10, yaw=0.6 * np.sin(k), smile=0.4 * (k % 7 == 0), scale=0.4 + 0.15 * np.cos(k))
    for k in range(200)
]
STATISTICS = ParameterStatistics.from_parameters(
    AVATAR, CropBox(0.0, 0.0, 1.0), closed_lip_gap=measure_closed_lip_gap(AVATAR)
)


def drive(
    source: Callable[[float], FaceParameters | None], seconds: float, fps: int = 10
) -> list[FaceParameters]:
    """What the avatar does in each frame."""
    retargeter = Retargeter(STATISTICS)
    shown = []
    for time_s in np.arange(1, seconds * fps) / fps:
        driver = source(float(time_s))
        result = retargeter.hold(float(time_s)) if driver is None else retargeter.retarget(driver)
        shown.append(result.parameters)
    return shown


def yaws(shown: list[FaceParameters]) -> np.ndarray:
    return np.array([rotation_vector_from_quaternion(p.rotation)[1] for p in shown])


@pytest.mark.parametrize("fps", RATES)
def test_a_smile_that_is_held_stays_a_smile(fps: int) -> None:
    shown = drive(lambda t: face(t, smile=0.4 if 10 < t <= 40 else 0.0), 45, fps)
    smiles = np.array([p.expression[SMILE] for p in shown])
    rest = STATISTICS.neutral_expression[SMILE]
    assert smiles[12 * fps : 40 * fps - 1].min() > rest + 0.35
    assert smiles[41 * fps :] == pytest.approx(rest, abs=0.03)


@pytest.mark.parametrize("fps", RATES)
def test_a_head_that_looks_aside_stays_so_and_comes_back(fps: int) -> None:
    shown = yaws(drive(lambda t: face(t, yaw=0.5 if 10 < t <= 30 else 0.0), 40, fps))
    asked = yaws([face(k / fps, yaw=0.5) for k in range(1, 40 * fps)])
    aside, after = slice(10 * fps, 30 * fps - 1), slice(30 * fps, None)
    assert shown[aside] == pytest.approx(asked[aside], abs=0.03)
    assert shown[after] == pytest.approx(asked[after] - 0.5, abs=0.03)


def test_who_looked_aside_at_first_is_followed_when_they_face_the_camera() -> None:
    shown = yaws(drive(lambda t: face(t, yaw=0.5 if t <= 6 else 0.0), 40))
    assert np.abs(shown[40:60]).mean() < 0.2  # taken as frontal until then
    assert np.abs(shown[250:]).max() < 0.1


def test_a_camera_that_stands_aside_is_settled_within_seconds() -> None:
    shown = yaws(drive(lambda t: face(t, yaw=0.6), 60))
    assert np.abs(shown[50:]).max() < 0.15


def test_who_moves_nearer_is_as_large_as_before_soon() -> None:
    shown = drive(lambda t: face(t, scale=0.4 if t < 20 else 0.5), 60)
    scales = np.array([p.scale for p in shown]) / STATISTICS.scale.mean[0]
    assert scales[150] == pytest.approx(1.0, abs=0.01)
    assert scales[220] == pytest.approx(1.25, abs=0.02)
    assert scales[450:] == pytest.approx(1.0, abs=0.03)


def test_all_rates_behave_alike() -> None:
    def source(time_s: float) -> FaceParameters:
        smile = 0.4 if 5 < time_s <= 12 else 0.0
        return face(time_s, yaw=0.4 if 8 < time_s <= 14 else 0.05, smile=smile, rest=0.2)

    slow, usual, fast = (drive(source, 20, fps)[fps - 1 :: fps] for fps in RATES)
    assert len(slow) == len(usual) == len(fast) == 19
    for a, b, c in zip(slow, usual, fast, strict=True):
        assert b.capture_time_s == a.capture_time_s == c.capture_time_s
        assert b.expression == pytest.approx(a.expression, abs=0.03)
        assert b.expression == pytest.approx(c.expression, abs=0.03)
        assert b.rotation == pytest.approx(a.rotation, abs=0.01)
        assert b.rotation == pytest.approx(c.rotation, abs=0.01)


@pytest.mark.parametrize("fps", RATES)
def test_a_lost_face_is_held_and_fades_in_a_second_at_every_rate(fps: int) -> None:
    def source(time_s: float) -> FaceParameters | None:
        return face(time_s, smile=0.4) if time_s <= 2 else None

    shown = drive(source, 4, fps)
    resting = STATISTICS.neutral_expression[SMILE]
    last = shown[2 * fps - 1].expression[SMILE]
    after = np.array([p.expression[SMILE] for p in shown[2 * fps :]])
    assert last > resting + 0.1
    assert after[: int(0.3 * fps)] == pytest.approx(last)
    assert after[fps:] == pytest.approx(resting, abs=1e-6)
    half = after[round(fps * 2 / 3) - 1]
    assert half == pytest.approx((last + resting) / 2, abs=0.2 * float(last - resting))


@pytest.mark.parametrize("fps", RATES)
def test_the_way_back_takes_a_third_of_a_second_at_every_rate(fps: int) -> None:
    def source(time_s: float) -> FaceParameters | None:
        return None if 2 < time_s <= 4 else face(time_s, yaw=0.0 if time_s <= 2 else 0.5)

    shown = yaws(drive(source, 6, fps))
    back = shown[4 * fps - 1 :]
    resting, there = back[0], back[round(0.3 * fps) + 1]
    assert there > resting + 0.4
    assert back[round(0.3 * fps) + 1 :] == pytest.approx(there, abs=0.1)
    steps = [abs(b - a) for a, b in pairwise(back[: round(0.3 * fps) + 2])]
    assert max(steps) < 0.55 * (there - resting)
    assert np.all(np.diff(back[: round(0.3 * fps)]) > 0)


def test_a_neutral_that_is_declared_before_any_face_is_the_first_one() -> None:
    retargeter = Retargeter(STATISTICS)
    retargeter.set_neutral()
    retargeter.hold(0.0)
    open_mouth = face(0.3, rest=0.3)
    shown = retargeter.retarget(open_mouth).parameters
    assert shown.expression == pytest.approx(STATISTICS.neutral_expression, abs=0.02)
    for index in range(1, 100):
        wider = replace(open_mouth, capture_time_s=0.3 + index / 10)
        wider = replace(wider, expression=wider.expression + np.float32(0.2))
        shown = retargeter.retarget(wider).parameters
    assert shown.expression[SMILE] > STATISTICS.neutral_expression[SMILE] + 0.15
