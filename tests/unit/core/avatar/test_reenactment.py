# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from styleavatar_core.avatar.reenactment import (
    DriverGains,
    NearestSample,
    ParameterStatistics,
    Retargeter,
)
from styleavatar_core.avatar.statistics import measure_closed_lip_gap
from styleavatar_core.errors import AssetError, InvalidInputError
from styleavatar_core.face3d.arkit import ARKIT_INDEX
from styleavatar_core.face3d.camera import (
    parameters_in_crop,
    quaternion_from_rotation_vector,
    rotation_vector_from_quaternion,
)
from styleavatar_core.face3d.faceverse import convert_faceverse
from styleavatar_core.face3d.library import add_face_model
from styleavatar_core.face3d.lip_gap import lip_gap
from styleavatar_core.types import CropBox, FaceParameters
from tests.fakes.faceverse import faceverse_contents, write_faceverse

WINDOW = CropBox(0.1, -0.1, 0.8)
JAW, BLINK, SMILE = (ARKIT_INDEX[n] for n in ("jawOpen", "eyeBlinkLeft", "mouthSmileLeft"))


def person(
    count: int, *, scale: float, rest: float, seed: int, yaw: float = 0.0
) -> list[FaceParameters]:
    """A talking, blinking, nodding person, in frame coordinates."""
    rng = np.random.default_rng(seed)
    frames = []
    for index in range(count):
        t = index / 30
        expression = np.zeros(52, np.float32)
        expression[JAW] = rest + 0.35 * max(0.0, np.sin(6 * t))
        expression[BLINK] = 1.0 if index % 45 < 3 else 0.05
        expression[SMILE] = rest + 0.2 * max(0.0, np.sin(t))
        rotation = np.array([0.12 * np.sin(t), yaw + 0.2 * np.sin(0.7 * t), 0.08 * np.sin(1.3 * t)])
        place = np.array([0.2 * np.sin(0.5 * t), 0.1, 0.0]) + rng.normal(size=3) * 0.002
        frames.append(
            FaceParameters(
                "builtin-3",
                quaternion_from_rotation_vector(rotation),
                place.astype(np.float32),
                scale * (1 + 0.03 * np.sin(t)),
                expression,
                np.full((2, 2), 0.1 * np.sin(t), np.float32),
                frame_index=index,
            )
        )
    return frames


AVATAR = [parameters_in_crop(p, WINDOW) for p in person(300, scale=0.6, rest=0.05, seed=0)]
STATISTICS = ParameterStatistics.from_parameters(
    AVATAR, WINDOW, closed_lip_gap=measure_closed_lip_gap(AVATAR)
)


def correlation(a: list[float], b: list[float]) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def test_statistics_survive_json() -> None:
    values = json.loads(json.dumps(STATISTICS.to_dict()))
    again = ParameterStatistics.from_dict(values)
    assert again.window == WINDOW
    assert again.expression.maximum == pytest.approx(STATISTICS.expression.maximum, abs=1e-5)
    del values["scale"]
    with pytest.raises(AssetError, match="scale"):
        ParameterStatistics.from_dict(values)


def test_there_must_be_frames() -> None:
    with pytest.raises(InvalidInputError, match="no tracked frames"):
        ParameterStatistics.from_parameters([], WINDOW)


def test_the_same_person_keeps_every_trained_frame() -> None:
    retargeter = Retargeter(STATISTICS, "same_person")
    for source, trained in zip(person(300, scale=0.6, rest=0.05, seed=0), AVATAR, strict=True):
        result = retargeter.retarget(source)
        assert not result.clamped
        assert result.parameters.expression == pytest.approx(trained.expression, abs=1e-5)
        assert result.parameters.translation[:2] == pytest.approx(trained.translation[:2], abs=1e-4)
        assert result.parameters.rotation == pytest.approx(trained.rotation, abs=1e-5)


def test_another_person_moves_the_avatar_but_not_its_size_or_place() -> None:
    driver = person(400, scale=0.25, rest=0.3, seed=1)
    results = [r.parameters for r in map(Retargeter(STATISTICS).retarget, driver)]
    late = slice(60, None)
    for index, least in ((JAW, 0.95), (BLINK, 0.98), (SMILE, 0.9)):
        mine = [p.expression[index] for p in results[late]]
        theirs = [p.expression[index] for p in driver[late]]
        assert correlation(mine, theirs) > least
    for axis in range(3):
        mine = [rotation_vector_from_quaternion(p.rotation)[axis] for p in results]
        theirs = [rotation_vector_from_quaternion(p.rotation)[axis] for p in driver]
        assert correlation(mine, theirs) > 0.98
    assert np.mean([p.scale for p in results]) == pytest.approx(STATISTICS.scale.mean[0], rel=0.03)
    assert np.std([p.scale for p in results]) < 0.06 * STATISTICS.scale.mean[0]
    assert min(p.expression[JAW] for p in results[200:]) < 0.15  # their rest is the avatar's rest


def test_an_open_mouth_in_the_first_frame_is_not_the_neutral() -> None:
    driver = person(300, scale=0.4, rest=0.05, seed=2)
    shouting = replace(driver[0], expression=driver[7].expression + np.float32(0.3))
    retargeter = Retargeter(STATISTICS)
    results = [retargeter.retarget(p).parameters for p in [shouting] * 10 + driver]
    mine = [p.expression[JAW] for p in results[100:]]
    assert max(mine) > 0.25
    assert min(mine) < 0.12


def test_set_neutral_holds_from_the_next_frame() -> None:
    driver = replace(person(1, scale=0.4, rest=0.4, seed=3)[0])
    retargeter = Retargeter(STATISTICS)
    before = retargeter.retarget(driver).parameters.expression[JAW]
    retargeter.set_neutral()
    after = retargeter.retarget(driver).parameters.expression[JAW]
    assert before > 0.25
    assert after <= STATISTICS.neutral_expression[JAW] + 0.02


def test_a_closed_mouth_closes_that_of_an_avatar_who_talked_all_the_time() -> None:
    talker = [parameters_in_crop(p, WINDOW) for p in person(300, scale=0.6, rest=0.3, seed=4)]
    for shut in talker[::12]:
        shut.expression[JAW] = 0.0
    closed = measure_closed_lip_gap(talker)
    statistics = ParameterStatistics.from_parameters(talker, WINDOW, closed_lip_gap=closed)
    assert statistics.neutral_expression[JAW] > 0.25
    silent = person(400, scale=0.4, rest=0.0, seed=5)
    retargeter = Retargeter(statistics)
    lips = lip_gap(statistics.model_id)
    shown = [lips.of(retargeter.retarget(p).parameters.expression) for p in silent][100:]
    asked = [lips.of(p.expression) for p in silent][100:]
    assert min(shown) == pytest.approx(closed, abs=0.01)  # decimetres
    opened, wanted = shown - np.min(shown), asked - np.min(asked)
    assert max(wanted) > 0.05
    assert opened == pytest.approx(wanted, abs=0.01)


def test_a_driver_who_always_looks_aside_comes_out_frontal() -> None:
    driver = person(400, scale=0.4, rest=0.05, seed=4, yaw=0.6)
    results = list(map(Retargeter(STATISTICS).retarget, driver))
    yaw = [rotation_vector_from_quaternion(r.parameters.rotation)[1] for r in results[200:]]
    assert abs(np.mean(yaw)) < 0.15


def test_what_is_beyond_the_range_is_held_back_and_said() -> None:
    far = replace(AVATAR[0], rotation=quaternion_from_rotation_vector(np.array([0, 1.2, 0])))
    retargeter = Retargeter(STATISTICS)
    result = retargeter.retarget(far)
    yaw = rotation_vector_from_quaternion(result.parameters.rotation)[1]
    assert result.clamped
    assert STATISTICS.rotation.maximum[1] < yaw < STATISTICS.rotation.maximum[1] + 0.15


def test_a_lost_face_is_held_then_fades_to_rest() -> None:
    retargeter = Retargeter(STATISTICS)
    assert retargeter.hold(0.0).parameters.scale == pytest.approx(STATISTICS.scale.mean[0])
    last = retargeter.retarget(person(1, scale=0.4, rest=0.3, seed=5)[0]).parameters
    held = [retargeter.hold(0.0).parameters for _ in range(40)]
    assert held[0].expression == pytest.approx(last.expression)
    assert held[-1].expression == pytest.approx(STATISTICS.neutral_expression, abs=1e-5)
    steps = [np.abs(b.expression - a.expression).max() for a, b in pairwise(held)]
    assert max(steps) < 0.05


@pytest.mark.parametrize(("lost_count", "goes_on_at"), [(3, 115), (60, 130)])
def test_a_face_that_is_found_again_takes_over_without_a_jump(
    lost_count: int, goes_on_at: int
) -> None:
    retargeter, driver = Retargeter(STATISTICS), person(200, scale=0.4, rest=0.1, seed=5)
    untouched = Retargeter(STATISTICS)
    for source in driver[:100]:
        retargeter.retarget(source)
        untouched.retarget(source)
    shown = [retargeter.hold(0.0).parameters for _ in range(lost_count)]
    after = driver[goes_on_at : goes_on_at + 40]
    back = [retargeter.retarget(p).parameters for p in after]
    free = [untouched.retarget(p).parameters for p in after]
    jump = distance(shown[-1], free[0])  # what it would be without a way back
    assert jump > 0.25
    assert max(distance(a, b) for a, b in pairwise([shown[-1], *back])) < 0.4 * jump
    assert back[-1].expression == pytest.approx(free[-1].expression, abs=0.02)
    assert back[-1].frame_index == after[-1].frame_index


def distance(a: FaceParameters, b: FaceParameters) -> float:
    turn = rotation_vector_from_quaternion(a.rotation) - rotation_vector_from_quaternion(b.rotation)
    # Blinks are as fast as they are: what may not jump is pose, jaw and smile.
    moved = (a.expression - b.expression)[[JAW, SMILE]]
    return float(max(np.abs(turn).max(), np.abs(moved).max(), abs(a.scale - b.scale)))


def test_gains_change_how_much_is_taken_over() -> None:
    driver = replace(
        person(1, scale=0.6, rest=0.05, seed=0)[0],
        rotation=quaternion_from_rotation_vector(np.array([0.05, 0.1, 0.02])),
        eye_rotation=np.full((2, 2), 0.08, np.float32),
    )
    driver.expression[[JAW, BLINK]] = 0.25, 0.6

    def shown(**gains: float) -> FaceParameters:
        return (
            Retargeter(STATISTICS, "same_person", DriverGains(**gains)).retarget(driver).parameters
        )

    plain, rest = shown(), STATISTICS.neutral_expression
    half = shown(mouth=0.5, blink=0.5, gaze=0.5, head=0.5)
    for column in (JAW, BLINK):
        wanted = rest[column] + 0.5 * (plain.expression[column] - rest[column])
        assert half.expression[column] == pytest.approx(wanted, abs=1e-3)
    assert half.eye_rotation == pytest.approx(plain.eye_rotation / 2, abs=1e-3)
    usual = STATISTICS.rotation.mean
    turns = [rotation_vector_from_quaternion(p.rotation) - usual for p in (plain, half)]
    assert turns[1] == pytest.approx(turns[0] / 2, abs=1e-3)
    assert shown(mouth=0.0).expression[JAW] == pytest.approx(rest[JAW], abs=1e-3)
    assert shown(mouth=0.0).expression[BLINK] == pytest.approx(plain.expression[BLINK])


def test_coefficients_of_a_model_without_a_limit_may_exceed_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STYLEAVATAR_DATA", str(tmp_path))
    path = write_faceverse(tmp_path / "file.npy", faceverse_contents("v4"))
    model_id = add_face_model(convert_faceverse(path)).model_id
    count = 177

    def strong(params: FaceParameters) -> FaceParameters:
        expression = np.resize(4 * params.expression, count)
        return replace(params, model_id=model_id, expression=expression)

    trained = [strong(p) for p in AVATAR]
    statistics = ParameterStatistics.from_parameters(
        trained, WINDOW, closed_lip_gap=measure_closed_lip_gap(trained)
    )
    source = strong(person(9, scale=0.6, rest=0.05, seed=0)[-1])
    same = Retargeter(statistics, "same_person", DriverGains(head=0.9)).retarget(source)
    assert same.parameters.expression[JAW] == pytest.approx(source.expression[JAW], abs=1e-5)
    assert same.parameters.expression[JAW] > 1.5
    other = Retargeter(statistics, "other_person").retarget(source).parameters.expression
    assert other.min() >= 0.0
    assert other.max() > 1.2


@pytest.mark.parametrize("value", [-0.1, 3.5, float("nan")])
def test_absurd_gains_are_refused(value: float) -> None:
    with pytest.raises(InvalidInputError, match="gain of mouth"):
        DriverGains(mouth=value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_id": "faceverse-v3"}, "faceverse-v3"),
        ({"expression": np.zeros(3, np.float32)}, "3 expression"),
        ({"scale": float("nan")}, "finite"),
        ({"translation": np.full(3, np.inf, np.float32)}, "finite"),
        ({"scale": -1.0}, "positive"),
    ],
)
def test_unusable_parameters_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        Retargeter(STATISTICS).retarget(replace(AVATAR[0], **change))


def test_the_nearest_sample_is_the_frame_itself() -> None:
    nearest = NearestSample(AVATAR, STATISTICS)
    assert nearest.find(AVATAR[17]) == (17, pytest.approx(0.0, abs=1e-5))
    far = replace(AVATAR[17], scale=AVATAR[17].scale * 1.5)
    assert nearest.find(far)[1] > 0.5


def test_another_person_is_led_to_without_a_jump_and_has_a_neutral_of_their_own() -> None:
    known, alone = Retargeter(STATISTICS), Retargeter(STATISTICS)
    for params in person(300, scale=0.5, rest=0.3, seed=1, yaw=0.5):
        before = known.retarget(params).parameters
    others = [replace(p, person_index=1) for p in person(60, scale=0.9, rest=0.0, seed=2)]
    led = [known.retarget(p).parameters for p in others]
    wanted = [alone.retarget(p).parameters for p in others]
    way = [before, *led]
    for name in ("rotation", "translation", "expression"):
        steps = [np.abs(getattr(b, name) - getattr(a, name)).max() for a, b in pairwise(way)]
        assert steps[0] < 0.1
        for one, other in zip(led[15:], wanted[15:], strict=True):
            assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-5)


def test_a_neutral_that_the_next_person_declares_before_they_are_told_apart_is_theirs() -> None:
    told, untold = Retargeter(STATISTICS), Retargeter(STATISTICS)
    following, shown = person(80, scale=0.9, rest=0.0, seed=2), []
    for retargeter, index in ((told, 1), (untold, 0)):
        for params in person(60, scale=0.5, rest=0.3, seed=1):
            retargeter.retarget(params)
        retargeter.hold(0.0)
        for params in following[:20]:
            retargeter.retarget(params)
        retargeter.set_neutral()
        shown += [
            retargeter.retarget(replace(p, person_index=index)).parameters for p in following[20:]
        ]
    for one, other in zip(shown[:60], shown[60:], strict=True):
        assert np.array_equal(one.translation, other.translation)
        assert np.array_equal(one.expression, other.expression)
