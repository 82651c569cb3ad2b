# SPDX-License-Identifier: Apache-2.0
"""The measures of ``python -m benchmarks.tracking``, on what is known."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks.tracking import read_options
from benchmarks.tracking_parts.accuracy import liveliest, noise_curve, plot_noise
from benchmarks.tracking_parts.cost import with_vertices
from benchmarks.tracking_parts.stillness import filter_figures
from styleavatar_core.face3d.arkit import ARKIT_INDEX
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.camera import quaternion_from_rotation_vector
from styleavatar_core.tracking.video import TrackedVideo
from styleavatar_core.types import FaceIdentity, FaceParameters


def test_more_vertices_are_the_same_surface() -> None:
    model = builtin_model()
    large = with_vertices(model, 28_632)
    assert len(large.mean_shape) == 28_632

    def area(faces: np.ndarray, points: np.ndarray) -> float:
        a, b, c = (points[faces[:, k]].astype(np.float64) for k in range(3))
        return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)

    whole = area(model.faces, model.mean_shape)
    assert area(large.faces, large.mean_shape) == pytest.approx(whole, rel=1e-4)
    assert np.array_equal(large.mean_shape[: len(model.mean_shape)], model.mean_shape)


def test_jitter_and_delay_are_those_of_the_filter() -> None:
    rng = np.random.default_rng(0)
    parameters: list[FaceParameters | None] = []
    for index in range(600):
        yaw = 0.0 if index < 300 else 0.5 * np.sin((index - 300) / 12)
        rotation = quaternion_from_rotation_vector(rng.normal(size=3) * 0.003 + [0.0, yaw, 0.0])
        parameters.append(
            FaceParameters(
                "builtin-3", rotation, np.zeros(3, np.float32), 0.5, np.zeros(52, np.float32),
                np.zeros((2, 2), np.float32), capture_time_s=index / 30,
            )
        )  # fmt: skip
    nobody = FaceIdentity("builtin-3", np.zeros(1, np.float32), np.zeros(1, np.float32))
    video = TrackedVideo(parameters, nobody, 30.0, 64, 64, np.zeros((600, 478, 3), np.float32))
    figures = filter_figures([video])
    assert figures["still.jitter_deg_raw"] == pytest.approx(np.degrees(0.003), rel=0.15)
    assert figures["still.jitter_deg_filtered"] < 0.8 * figures["still.jitter_deg_raw"]
    assert 0.0 <= figures["filter.delay_frames"] < 2.0
    assert filter_figures([])["filter.delay_frames"] is None


def test_errors_grow_gently_with_noise_and_are_drawn(tmp_path: Path) -> None:
    curve = noise_curve(6)
    assert curve["rotation_error_deg"][0] < 1.0
    assert 0.0 < curve["eye_rotation_error_deg"][0] < 3.0
    # An iris has five landmarks on a ball of 12 mm: 4 mm of noise turn it by many degrees.
    limits = {"rotation_error_deg": 2.5, "expression_rmse": 2.5, "eye_rotation_error_deg": 8.0}
    for name, limit in limits.items():
        assert curve[name][-1] > curve[name][0]
        assert max(after - before for before, after in pairwise(curve[name])) < limit
    plot_noise(json.loads(json.dumps(curve)), tmp_path / "noise.png")
    assert (tmp_path / "noise.png").read_bytes()[:4] == b"\x89PNG"


def test_two_clips_of_one_name_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(read_options(["--clips", "anna.mp4", "ben.mp4"]).clips) == 2
    with pytest.raises(SystemExit):
        read_options(["--clips", "anna/video.mp4", "ben/video.mp4"])
    assert "more than one is called video;" in capsys.readouterr().err


def test_the_liveliest_driver_is_chosen() -> None:
    def video(jaw: float) -> TrackedVideo:
        parameters: list[FaceParameters | None] = [None]
        for index in range(20):
            expression = np.zeros(52, np.float32)
            expression[ARKIT_INDEX["jawOpen"]] = 0.3 + jaw * np.sin(index)
            parameters.append(
                FaceParameters(
                    "builtin-3", np.array([1, 0, 0, 0], np.float32), np.zeros(3, np.float32), 0.5,
                    expression, np.zeros((2, 2), np.float32),
                )
            )  # fmt: skip
        nobody = FaceIdentity("builtin-3", np.zeros(1, np.float32), np.zeros(1, np.float32))
        return TrackedVideo(parameters, nobody, 30.0, 64, 64, np.zeros((21, 478, 3), np.float32))

    still, talking = video(0.02), video(0.25)
    assert liveliest([still, talking]) is talking
    assert liveliest([talking, still]) is talking
