# SPDX-License-Identifier: Apache-2.0
"""What is kept of the parameters that an avatar was trained on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from styleavatar_core.avatar.reenactment import (
    DriverGains,
    ParameterStatistics,
    Retargeter,
)
from styleavatar_core.avatar.statistics import PlaceByRotation, measure_closed_lip_gap
from styleavatar_core.errors import AssetError, InvalidInputError
from styleavatar_core.face3d.faceverse import convert_faceverse
from styleavatar_core.face3d.library import add_face_model
from styleavatar_core.types import FaceParameters
from tests.fakes.faceverse import faceverse_contents, write_faceverse
from tests.fakes.moving_person import AVATAR, JAW, STATISTICS, WINDOW, person


def test_statistics_survive_json() -> None:
    values = json.loads(json.dumps(STATISTICS.to_dict()))
    again = ParameterStatistics.from_dict(values)
    assert again.window == WINDOW
    assert again.expression.maximum == pytest.approx(STATISTICS.expression.maximum, abs=1e-5)
    told = again.place_by_rotation.told(np.array([0.1, -0.2, 0.3]))
    assert told == pytest.approx(
        STATISTICS.place_by_rotation.told(np.array([0.1, -0.2, 0.3])), abs=1e-5
    )
    del values["scale"]
    with pytest.raises(AssetError, match="scale"):
        ParameterStatistics.from_dict(values)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("window", [0.0, 0.0, 0.0]),
        ("window", [0.0, 0.0, float("nan")]),
        ("scale", {"mean": [], "std": [], "minimum": [], "maximum": []}),
        ("scale", {"mean": [-1.0], "std": [0.1], "minimum": [-1.0], "maximum": [1.0]}),
        ("translation", dict.fromkeys(("mean", "std", "minimum", "maximum"), [float("nan")] * 2)),
        ("place_by_rotation", {}),
        ("place_by_rotation", {"constant": [0.0, 0.0]}),
        (
            "place_by_rotation",
            {name: [0.0] * 2 for name in ("constant", "slopes", "std", "minimum", "maximum")},
        ),
        ("neutral_expression", [0.0] * 51),
        ("neutral_expression", [float("inf")] * 52),
    ],
)
def test_statistics_that_no_training_gives_are_refused(name: str, value: object) -> None:
    with pytest.raises(AssetError, match="statistics are damaged"):
        ParameterStatistics.from_dict({**STATISTICS.to_dict(), name: value})


def test_places_are_told_by_rotations_as_far_as_they_follow_them() -> None:
    random = np.random.default_rng(3)
    rotations = random.normal(0.1, 0.2, (400, 3))
    slopes = np.array([[0.1, -0.7, 0.2], [0.5, 0.0, 0.0]])
    rest = random.uniform(-0.05, 0.05, (400, 2))
    fit = PlaceByRotation.of(rotations, np.array([0.3, -0.2]) + rotations @ slopes.T + rest)
    np.testing.assert_allclose(fit.slopes, slopes, atol=0.02)
    np.testing.assert_allclose(fit.told(np.zeros(3)), [0.3, -0.2], atol=0.01)
    np.testing.assert_allclose([fit.minimum, fit.maximum], [[-0.05] * 2, [0.05] * 2], atol=0.01)
    np.testing.assert_allclose(fit.std, 0.05 / np.sqrt(3), rtol=0.1)
    still = PlaceByRotation.of(np.full((3, 3), 0.1), np.array([[1.0, 2.0], [2.0, 2.0], [3.0, 2.0]]))
    np.testing.assert_allclose(still.told(np.full(3, 0.1)), [2.0, 2.0], atol=1e-6)
    np.testing.assert_allclose(still.slopes, 0.0, atol=1e-6)


def test_there_must_be_frames() -> None:
    with pytest.raises(InvalidInputError, match="no tracked frames"):
        ParameterStatistics.from_parameters([], WINDOW)


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
