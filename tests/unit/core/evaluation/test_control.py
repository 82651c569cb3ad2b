# SPDX-License-Identifier: Apache-2.0
import math
from dataclasses import replace

import numpy as np
import pytest

from styleavatar_core.evaluation.baselines import NearestSample
from styleavatar_core.evaluation.control import (
    control_fidelity,
    control_series,
    rotation_error_deg,
)
from styleavatar_core.face3d.arkit import ARKIT_NAMES
from styleavatar_core.face3d.camera import quaternion_from_rotation_vector
from styleavatar_core.face3d.faceverse import convert_faceverse
from styleavatar_core.face3d.library import add_face_model
from styleavatar_core.types import CropBox, FaceParameters
from tests.fakes.faceverse import faceverse_contents, write_faceverse


def moving(count=20, mouth_sign=1.0):
    phases = np.linspace(0, 6, count)
    frames = []
    for index, phase in enumerate(phases):
        expression = np.zeros(52, np.float32)
        expression[ARKIT_NAMES.index("jawOpen")] = 0.5 + mouth_sign * 0.4 * np.sin(phase)
        turn = np.array([0.05 * np.cos(2 * phase), 0.3 * np.sin(phase), 0.0])
        frames.append(
            FaceParameters(
                model_id="builtin-3",
                rotation=quaternion_from_rotation_vector(turn),
                translation=np.array([0.1 * index, 0, 0], np.float32),
                scale=0.5,
                expression=expression,
                eye_rotation=np.zeros((2, 2), np.float32),
                frame_index=index,
            )
        )
    return frames


def test_a_perfect_copy_correlates_fully():
    figures = control_fidelity(moving(), moving())
    assert figures["rotation_r"] == pytest.approx(1.0)
    assert figures["mouth_r"] == pytest.approx(1.0)
    assert math.isnan(figures["lids_r"])  # the driver never blinks
    assert math.isnan(figures["gaze_r"])


def test_an_opposite_mouth_is_seen():
    figures = control_fidelity(moving(), moving(mouth_sign=-1.0))
    assert figures["jaw_r"] == pytest.approx(-1.0, abs=1e-4)
    assert figures["mouth_r"] < -0.99
    assert figures["rotation_r"] == pytest.approx(1.0)


def test_lips_closed_over_an_open_jaw_are_a_closed_mouth():
    def with_jaw(opened, closed):
        expression = np.zeros(52, np.float32)
        expression[ARKIT_NAMES.index("jawOpen")] = opened
        expression[ARKIT_NAMES.index("mouthClose")] = closed
        return replace(moving(1)[0], expression=expression)

    frames = [with_jaw(0.0, 0.0), with_jaw(0.3, 0.0), with_jaw(0.6, 0.0), with_jaw(0.3, 0.3)]
    opening, _ = control_series(frames, frames)["mouth"]
    assert opening[2] > opening[1] + 3 > opening[0] + 6  # mm
    assert opening[3] < opening[0] + 0.4 * (opening[1] - opening[0])


def test_coefficients_without_names_are_no_jaw_and_no_smile(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEAVATAR_DATA", str(tmp_path))
    file = write_faceverse(tmp_path / "file.npy", faceverse_contents("v4"))
    model_id = add_face_model(convert_faceverse(file)).model_id
    frames = [
        replace(frame, model_id=model_id, expression=np.resize(frame.expression, 177))
        for frame in moving()
    ]
    assert set(control_series(frames, frames)) == {"pitch", "yaw", "roll", "mouth", "gaze"}
    figures = control_fidelity(frames, frames)
    assert not {"jaw_r", "smile_r", "lids_r"} & set(figures)
    assert figures["mouth_r"] == pytest.approx(1.0)
    assert figures["rotation_r"] == pytest.approx(1.0)


def test_nearest_sample_finds_itself_and_its_neighbour():
    frames = moving()
    nearest = NearestSample(frames, CropBox(0.1, 0.0, 0.8))
    assert [nearest.find(frame) for frame in frames] == list(range(len(frames)))
    shifted = replace(frames[7], translation=frames[7].translation + np.float32(0.01))
    assert nearest.find(shifted) == 7


def test_series_are_what_is_correlated_and_rotation_error_is_an_angle():
    series = control_series(moving(), moving(mouth_sign=-1.0))
    asked, seen = series["jaw"]
    np.testing.assert_allclose(asked + seen, 1.0, atol=1e-6)
    assert set(series) == {"pitch", "yaw", "roll", "mouth", "jaw", "smile", "lids", "gaze"}
    turned = [
        replace(frame, rotation=quaternion_from_rotation_vector(np.array([0.0, 0.0, 0.1])))
        for frame in moving()
    ]
    still = [replace(frame, rotation=np.array([-1, 0, 0, 0], np.float32)) for frame in moving()]
    assert rotation_error_deg(still, turned) == pytest.approx(np.degrees(0.1), abs=1e-3)
