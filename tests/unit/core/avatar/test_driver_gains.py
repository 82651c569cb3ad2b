# SPDX-License-Identifier: Apache-2.0
"""How gains amplify or weaken what an avatar takes over from its driver."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from styleavatar_core.avatar.reenactment import (
    DriverGains,
    Retargeter,
)
from styleavatar_core.errors import InvalidInputError
from styleavatar_core.face3d.arkit import ARKIT_INDEX
from styleavatar_core.face3d.camera import (
    quaternion_from_rotation_vector,
    rotation_vector_from_quaternion,
)
from styleavatar_core.types import FaceParameters
from tests.fakes.moving_person import BLINK, JAW, STATISTICS, person


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


def test_lids_follow_the_gaze_and_no_coefficient_leaves_the_models_bounds() -> None:
    driver, look = person(1, scale=0.6, rest=0.05, seed=0)[0], ARKIT_INDEX["eyeLookDownLeft"]
    driver.expression[[look, JAW, BLINK]] = 0.4, 0.9, 0.0
    shown = DriverGains(gaze=0.5, mouth=3.0, blink=3.0).apply(driver, STATISTICS).expression
    assert shown[[look, JAW, BLINK]] == pytest.approx([0.2, 1.0, 0.0])


@pytest.mark.parametrize("value", [-0.1, 3.5, float("nan")])
def test_absurd_gains_are_refused(value: float) -> None:
    with pytest.raises(InvalidInputError, match="gain of mouth"):
        DriverGains(mouth=value)


def test_however_large_its_gain_a_head_never_turns_to_the_other_side() -> None:
    retargeter = Retargeter(STATISTICS, "same_person", DriverGains(head=3.0))
    driver, yaws = person(1, scale=0.6, rest=0.05, seed=0)[0], []
    for yaw in np.linspace(0.2, 1.5, 27):
        turned = replace(driver, rotation=quaternion_from_rotation_vector(np.array([0, yaw, 0])))
        shown = retargeter.retarget(turned).parameters
        yaws.append(rotation_vector_from_quaternion(shown.rotation)[1])
    assert (np.diff(yaws) > -1e-3).all()
    assert min(yaws) > 0
