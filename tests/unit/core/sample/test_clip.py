# SPDX-License-Identifier: Apache-2.0
"""The sample clip: curves, what shows through the openings, and frames that follow their truth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from styleavatar_core.data.video import read_frames
from styleavatar_core.errors import InvalidInputError
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.camera import rotation_vector_from_quaternion
from styleavatar_core.sample.clip import SampleClip, fit_portrait, make_sample_clip
from styleavatar_core.sample.layers import IRIS_CENTERS, polygon_alpha
from styleavatar_core.sample.motion import HEAD_RANGE_DEG, sample_curves
from styleavatar_core.sample.warp import Portrait, PortraitWarp
from styleavatar_core.types import ByteArray, FaceParameters

SIZE_PX = 256


@pytest.fixture(scope="module")
def portrait() -> Portrait:
    return fit_portrait(SIZE_PX)


@pytest.fixture(scope="module")
def warp(portrait: Portrait) -> PortraitWarp:
    return PortraitWarp(portrait, builtin_model())


def with_expression(params: FaceParameters, **values: float) -> FaceParameters:
    expression = params.expression.copy()
    for name, value in values.items():
        expression[builtin_model().expression_names.index(name)] = value
    return replace(params, expression=expression)


def brightness_at(frame: ByteArray, point: np.ndarray) -> float:
    column, row = point.astype(int)
    return float(frame[row - 1 : row + 2, column - 1 : column + 2].mean())


def test_curves_follow_from_the_seed_and_stay_in_range() -> None:
    first, again, other = (sample_curves(500, 25, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.angles, again.angles)
    assert not np.array_equal(first.angles, other.angles)
    assert np.all(np.abs(np.rad2deg(first.angles)) <= 1.2 * np.array(HEAD_RANGE_DEG))
    for name, curve in first.expression.items():
        assert curve.min() >= 0.0, name
        assert curve.max() <= 1.0, name


def test_curves_blink_and_speak_in_every_fifth_of_the_clip() -> None:
    curves = sample_curves(600, 25, 0)
    for part in np.split(np.arange(600), 5):
        assert curves.expression["eyeBlink"][part].max() > 0.9
        assert curves.expression["jawOpen"][part].max() > 0.2


def test_polygon_covers_its_area() -> None:
    square = np.array([[2.25, 3.0], [7.75, 3.0], [7.75, 8.0], [2.25, 8.0]], np.float32)
    alpha = polygon_alpha((12, 12), square)
    assert alpha.sum() == pytest.approx(5.5 * 5.0, rel=0.1)
    assert alpha[5, 5] == 1.0
    assert alpha[0, 0] == 0.0


def test_the_truth_stays_when_the_tracker_changes(portrait: Portrait) -> None:
    turned = np.degrees(rotation_vector_from_quaternion(portrait.params.rotation))
    assert turned == pytest.approx([6.26, 0.85, 3.49], abs=0.1)


def test_at_rest_the_photograph_comes_back(portrait: Portrait, warp: PortraitWarp) -> None:
    difference = np.abs(warp.render(portrait.params).astype(int) - portrait.image)
    low, high = (
        portrait.landmarks.min(axis=0).astype(int),
        portrait.landmarks.max(axis=0).astype(int),
    )
    assert difference[low[1] : high[1], low[0] : high[0]].mean() < 4.0


def test_lids_cover_the_iris_when_they_close(portrait: Portrait, warp: PortraitWarp) -> None:
    open_frame = warp.render(portrait.params)
    shut = with_expression(portrait.params, eyeBlinkLeft=1.0, eyeBlinkRight=1.0)
    shut_frame = warp.render(shut)
    for index in IRIS_CENTERS.values():
        iris = portrait.landmarks[index]
        assert brightness_at(shut_frame, iris) > brightness_at(open_frame, iris) + 15


def test_the_mouth_opens_dark(portrait: Portrait, warp: PortraitWarp) -> None:
    wide = warp.render(with_expression(portrait.params, jawOpen=0.8)).astype(int)
    center = portrait.landmarks[[13, 14]].mean(axis=0).astype(int)
    below = wide[center[1] : center[1] + 20, center[0]].mean(axis=-1)
    assert below.min() < 70


def test_the_head_moves_where_its_translation_says(portrait: Portrait, warp: PortraitWarp) -> None:
    shift_px = 6
    shift = np.array([shift_px / (SIZE_PX / 2) / portrait.params.scale, 0, 0], np.float32)
    moved = replace(portrait.params, translation=portrait.params.translation + shift)
    frame = warp.render(moved).astype(int)
    column, row = portrait.landmarks[1].astype(int)  # the nose
    here = frame[row - 12 : row + 12, column - 12 + shift_px : column + 12 + shift_px]
    before = portrait.image[row - 12 : row + 12, column - 12 : column + 12].astype(int)
    stayed = frame[row - 12 : row + 12, column - 12 : column + 12]
    assert np.abs(here - before).mean() < 0.5 * np.abs(stayed - before).mean()


def test_the_clip_has_every_frame_and_its_truth(sample_clip: SampleClip) -> None:
    frames = [frame for _, _, frame in read_frames(sample_clip.path)]
    assert len(frames) == len(sample_clip.parameters) == 150
    assert frames[0].shape == (256, 256, 3)
    truth = json.loads(sample_clip.truth_path.read_text())
    assert "NASA" in truth["origin"]
    assert truth["frames"][40]["frame_index"] == 40
    assert truth["frames"][40]["expression"] == sample_clip.parameters[40].expression.tolist()


@pytest.mark.parametrize(("seconds", "size_px"), [(0.2, 256), (5.0, 255), (5.0, 64)])
def test_impossible_clips_are_refused(tmp_path: Path, seconds: float, size_px: int) -> None:
    with pytest.raises(InvalidInputError, match="at least"):
        make_sample_clip(tmp_path / "clip.mp4", seconds=seconds, size_px=size_px)
