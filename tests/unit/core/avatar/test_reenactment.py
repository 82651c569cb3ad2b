# SPDX-License-Identifier: Apache-2.0
"""A driver's face on an avatar: relative to their neutral, within the trained range."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from styleavatar_core.avatar.reenactment import (
    ParameterStatistics,
    Retargeter,
)
from styleavatar_core.avatar.statistics import measure_closed_lip_gap
from styleavatar_core.avatar.trained_range import TrainedRange
from styleavatar_core.errors import InvalidInputError
from styleavatar_core.face3d.arkit import ARKIT_INDEX
from styleavatar_core.face3d.camera import (
    parameters_in_crop,
    quaternion_from_rotation_vector,
    rotation_vector_from_quaternion,
)
from styleavatar_core.face3d.lip_gap import lip_gap
from styleavatar_core.types import FaceParameters
from tests.fakes.moving_person import AVATAR, BLINK, JAW, SMILE, STATISTICS, WINDOW, person


def correlation(a: list[float], b: list[float]) -> float:
    return float(np.corrcoef(a, b)[0, 1])


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
    for p in driver:  # lips that close over a jaw which hangs
        p.expression[ARKIT_INDEX["mouthClose"]] = 0.48
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


def test_who_smiles_all_the_while_with_parted_lips_is_shown_so() -> None:
    smiling = person(1, scale=0.4, rest=0.2, seed=6)[0]
    retargeter = Retargeter(STATISTICS)
    lips = lip_gap(STATISTICS.model_id)
    asked = float(lips.of(smiling.expression))
    for index in range(600):  # 20 s
        shown = retargeter.retarget(replace(smiling, capture_time_s=index / 30)).parameters
    assert asked > STATISTICS.closed_lip_gap + 0.02  # decimetres
    assert lips.of(shown.expression) == pytest.approx(asked, abs=0.01)


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


def squinting(**eyes: tuple[float, ...]) -> ParameterStatistics:
    """An avatar whose person crossed the eyes: neither was seen to look far outward."""
    parts = {name: np.array(values, np.float32) for name, values in eyes.items()}
    return replace(STATISTICS, eye_rotation=replace(STATISTICS.eye_rotation, **parts))


def test_eyes_that_are_held_back_do_not_squint() -> None:
    statistics = squinting(
        minimum=(-0.2, -0.9, -0.2, -0.1), maximum=(0.2, 0.1, 0.2, 0.9), std=(0.1,) * 4
    )
    retargeter = Retargeter(statistics)
    shown = []
    for yaw in np.linspace(-0.7, 0.7, 57):
        looking = replace(AVATAR[0], eye_rotation=np.array([[0.05, yaw]] * 2, np.float32))
        shown.append(retargeter.retarget(looking).parameters.eye_rotation)
    left, right = np.transpose(shown, (1, 0, 2))
    assert left == pytest.approx(right, abs=0.02)
    assert np.ptp(left[:, 1]) > 0.25
    assert np.abs(np.diff(left[:, 1])).max() < 0.03  # no jump where one begins to be held


def test_crossed_eyes_are_crossed_as_far_as_was_seen() -> None:
    statistics = squinting(
        minimum=(-0.2, -0.3, -0.2, -0.1), maximum=(0.2, 0.1, 0.2, 0.3), std=(0.1,) * 4
    )
    crossed = replace(AVATAR[0], eye_rotation=np.array([[0, -0.8], [0, 0.8]], np.float32))
    shown = Retargeter(statistics).retarget(crossed).parameters.eye_rotation
    assert shown[:, 1] == pytest.approx([-0.3, 0.3], abs=0.01)


def test_who_crosses_the_eyes_beyond_what_was_seen_still_looks_about() -> None:
    statistics = squinting(
        minimum=(-0.2, -0.3, -0.2, -0.1), maximum=(0.2, 0.1, 0.2, 0.3), std=(0.1,) * 4
    )
    retargeter = Retargeter(statistics)
    for middle in np.linspace(-0.09, 0.09, 19):
        crossed = np.array([[0, middle - 0.8], [0, middle + 0.8]], np.float32)
        shown = retargeter.retarget(replace(AVATAR[0], eye_rotation=crossed))
        left, right = shown.parameters.eye_rotation[:, 1].tolist()
        assert (left + right) / 2 == pytest.approx(middle, abs=1e-3)
        assert right - left > 0.35  # they are crossed as far as that leaves them room
        assert -0.31 < left < right < 0.31


def test_eyes_of_avatars_that_saw_anything_move_without_jumps_and_stay_within_it() -> None:
    rng = np.random.default_rng(5)
    for _ in range(40):
        least = rng.uniform(-0.6, 0.1, 4)
        most = least + rng.uniform(0.02, 0.8, 4)
        statistics = squinting(minimum=tuple(least), maximum=tuple(most), std=(0.1,) * 4)
        begin, end = rng.uniform(-1, 1, (2, 2, 2))
        held = TrainedRange(statistics)
        path = [
            held.hold(replace(AVATAR[0], eye_rotation=eyes.astype(np.float32)))[0].eye_rotation
            for eyes in np.linspace(begin, end, 200)
        ]
        steps = np.abs(np.diff(path, axis=0)).max()
        assert steps < 2.5 * np.abs(end - begin).max() / 199
        shown = np.reshape(path, (200, 4))
        assert (shown > least - 0.051).all()
        assert (shown < most + 0.051).all()


def test_at_rest_the_mouth_is_closed_and_the_eyes_do_not_squint() -> None:
    talker = STATISTICS.neutral_expression.copy()
    talker[JAW] = 0.3
    statistics = replace(squinting(mean=(0.0, -0.3, 0.1, 0.5)), neutral_expression=talker)
    resting = Retargeter(statistics).hold(0.0).parameters
    gap = lip_gap(statistics.model_id).of(resting.expression)
    assert gap == pytest.approx(statistics.closed_lip_gap, abs=0.001)
    assert resting.eye_rotation == pytest.approx(np.array([[0.0, 0.0], [0.1, 0.2]]), abs=1e-6)


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


def test_the_first_face_of_a_stream_that_began_without_one_takes_over_without_a_jump() -> None:
    retargeter = Retargeter(STATISTICS, "same_person")
    turned = replace(AVATAR[0], rotation=quaternion_from_rotation_vector(np.array([0.0, 0.3, 0.0])))
    shown = [retargeter.hold(index / 25).parameters for index in range(1, 10)]
    shown += [
        retargeter.retarget(replace(turned, capture_time_s=index / 25)).parameters
        for index in range(10, 22)
    ]
    steps = [distance(*pair) for pair in pairwise(shown)]
    assert max(steps) < 0.4 * distance(shown[0], shown[-1])


def distance(a: FaceParameters, b: FaceParameters) -> float:
    turn = rotation_vector_from_quaternion(a.rotation) - rotation_vector_from_quaternion(b.rotation)
    # Blinks are as fast as they are: what may not jump is pose, jaw and smile.
    moved = (a.expression - b.expression)[[JAW, SMILE]]
    return float(max(np.abs(turn).max(), np.abs(moved).max(), abs(a.scale - b.scale)))


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
