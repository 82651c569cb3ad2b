# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from styleavatar_core.cli.main import build_app
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.camera import quaternion_from_rotation_vector
from styleavatar_core.tracking.capture import CaptureReport, FrameObserver, assess_capture
from styleavatar_core.tracking.capture_picture import draw_capture_report
from styleavatar_core.tracking.video import TrackedVideo
from styleavatar_core.types import FaceIdentity, FaceParameters

if TYPE_CHECKING:
    from styleavatar_core.sample.clip import SampleClip

FPS, COUNT = 10.0, 700
model = builtin_model()
REST = model.mean_shape[model.landmark_indices].astype(np.float32)
RNG = np.random.default_rng(0)
SKIN = RNG.integers(60, 200, (300, 300, 3)).astype(np.uint8)


def lively(index: int) -> dict[str, float]:
    time = index / FPS
    return {
        "yaw": 25 * np.sin(time / 2),
        "pitch": 14 * np.sin(time / 3),
        "gaze": 15 * np.sin(time),
        "mouth": 0.4 * max(np.sin(time), 0.0),
        "lids": 0.1 if index % 50 == 0 else 1.0,
    }


def still(_: int) -> dict[str, float]:
    return {"yaw": 0.0, "pitch": 0.0, "gaze": 0.0, "mouth": 0.0, "lids": 1.0}


def film(motion: object, frames: object = None, missing: range = range(0)) -> CaptureReport:
    """A report of a made-up clip: landmarks and parameters move as told, pixels as given."""
    observer, parameters, landmarks = FrameObserver(), [], []
    for index in range(COUNT):
        frame = SKIN if frames is None else frames(index)  # type: ignore[operator]
        if index in missing:
            observer.see(index / FPS, frame, None)
            parameters.append(None)
            landmarks.append(np.full((478, 3), np.nan, np.float32))
            continue
        m = motion(index)  # type: ignore[operator]
        points = REST * 120 + [150, 150, 0]
        points[14, 1] = points[13, 1] + 0.63 * 120 * m["mouth"]
        for upper, lower in ((159, 145), (386, 374)):
            points[lower] = points[upper] + (points[lower] - points[upper]) * m["lids"]
        observer.see(index / FPS, frame, points.astype(np.float32))
        landmarks.append(points.astype(np.float32))
        turn = np.radians([m["pitch"], m["yaw"], 0.0])
        gaze = np.radians(np.array([[m["gaze"] / 2, m["gaze"]]] * 2)).astype(np.float32)
        parameters.append(
            FaceParameters(
                model.model_id, quaternion_from_rotation_vector(turn), np.zeros(3, np.float32),
                1.0, np.zeros(52, np.float32), gaze,
            )
        )  # fmt: skip
    nobody = FaceIdentity(model.model_id, np.zeros(1, np.float32), np.zeros(1, np.float32))
    tracked = TrackedVideo(parameters, nobody, FPS, 300, 300, np.stack(landmarks))
    return assess_capture("clip.mp4", tracked, observer)


def names(report: CaptureReport) -> set[str]:
    return {finding.name for finding in report.findings}


def test_a_lively_clip_lacks_nothing() -> None:
    report = film(lively)
    assert names(report) == set()
    assert report.figures["yaw_max_deg"] == pytest.approx(25, abs=4)
    assert report.figures["blink_count"] == COUNT / 50 - 1  # the clip begins with one
    assert "Nothing is missing" in report.to_text()


def test_a_still_clip_is_told_what_to_film() -> None:
    report = film(still)
    turns = {"yaw_left", "yaw_right", "pitch_up", "pitch_down", "gaze_left", "gaze_right"}
    assert names(report) == turns | {"mouth", "blinks"}
    assert "Turn slowly to image left" in report.to_text()


def test_missing_faces_are_counted() -> None:
    report = film(lively, missing=range(100, 150))
    assert names(report) == {"face_missing"}
    assert report.figures["missing_percent"] == pytest.approx(100 * 50 / COUNT)


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda index: SKIN // 5, "dark"),
        (lambda index: np.maximum(SKIN, 240), "glaring"),
        (lambda index: SKIN // (1 + (index > 350)), "light_changes"),
        (lambda index: cv2.GaussianBlur(SKIN, (0, 0), 12), "blurred"),
        (
            lambda index: cv2.GaussianBlur(SKIN, (0, 0), 4) if index % 4 == 0 else SKIN,
            "motion_blur",
        ),
    ],
)
def test_bad_pictures_are_named(change: object, finding: str) -> None:
    assert finding in names(film(lively, change))


def test_the_picture_shows_where_the_head_was() -> None:
    moved, rested = (draw_capture_report(film(motion)) for motion in (lively, still))
    assert moved.shape == rested.shape == (760, 1200, 3)
    head = np.s_[40:340, :400]
    blue = [((p[head] == (38, 110, 180)).all(axis=-1)).sum() for p in (moved, rested)]
    assert blue[0] > 10 * blue[1] > 0


def test_the_command_writes_text_json_and_picture(sample_clip: SampleClip, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        build_app(), ["capture-report", str(sample_clip.path), str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["figures"]["missing_percent"] == 0
    assert "short" in {finding["name"] for finding in written["findings"]}
    assert (tmp_path / "report.txt").read_text().strip() in result.output
    assert cv2.imread(str(tmp_path / "report.png")).shape == (760, 1200, 3)
