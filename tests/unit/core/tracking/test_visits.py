# SPDX-License-Identifier: Apache-2.0
"""Clips in which somebody else is seen before or after the person."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from styleavatar_core.data.video import read_frames
from styleavatar_core.data.video_writer import VideoWriter
from styleavatar_core.errors import InvalidInputError
from styleavatar_core.tracking.capture import FrameObserver, assess_capture
from styleavatar_core.tracking.video import track_video

if TYPE_CHECKING:
    from styleavatar_core.sample.clip import SampleClip

FPS = 5
NOBODY = [np.zeros((256, 256, 3), np.uint8)] * (4 * FPS)

Pictures = list[np.ndarray]


@pytest.fixture(scope="module")
def person(sample_clip: SampleClip) -> Pictures:
    return [frame for index, _, frame in read_frames(sample_clip.path) if index % 3 == 0]


def reshaped(pictures: Pictures, share: float) -> Pictures:
    """Somebody else: a head as much wider or narrower."""
    inset = int(128 * (1 - 1 / share)) if share > 1 else 0
    parts = [picture[:, inset : 256 - inset] for picture in pictures]
    if share < 1:
        margin = int(128 * (1 / share - 1))
        parts = [cv2.copyMakeBorder(p, 0, 0, margin, margin, cv2.BORDER_REPLICATE) for p in parts]
    return [cv2.resize(part, (256, 256)) for part in parts]


def film(path: Path, *parts: Pictures) -> Path:
    with VideoWriter(path, FPS, 256, 256) as writer:
        for picture in itertools.chain(*parts):
            writer.write(picture)
    return path


@pytest.mark.parametrize("is_first", [True, False])
def test_a_visitor_is_left_out(person: Pictures, tmp_path: Path, is_first: bool) -> None:
    visitor = reshaped(person[:20], 1.33)
    parts = (visitor, NOBODY, person) if is_first else (person, NOBODY, visitor)
    observer = FrameObserver()
    tracked = track_video(film(tmp_path / "clip.mp4", *parts), on_frame=observer.see)
    where = slice(len(visitor) + len(NOBODY), None) if is_first else slice(len(person))
    assert all(params is not None for params in tracked.parameters[where])
    assert sum(params is not None for params in tracked.parameters) == len(person)
    assert np.isfinite(tracked.landmarks).all(axis=(1, 2)).sum() == len(person)
    assert tracked.other_count == len(visitor)
    alone = track_video(film(tmp_path / "alone.mp4", person)).identity
    assert np.abs(tracked.identity.identity - alone.identity).max() < 0.1
    report = assess_capture("clip.mp4", tracked, observer)
    assert report.figures["other_person_percent"] == pytest.approx(100 * 20 / 90)
    assert report.figures["missing_percent"] == pytest.approx(100 * 20 / 90)
    assert "other_person" in {finding.name for finding in report.findings}


def test_who_comes_back_is_the_same_person(person: Pictures, tmp_path: Path) -> None:
    tracked = track_video(film(tmp_path / "clip.mp4", person[:25], NOBODY, person[25:]))
    assert sum(params is not None for params in tracked.parameters) == len(person)
    assert tracked.other_count == 0


@pytest.mark.parametrize("start", [5, 20, 35])
def test_a_moment_is_too_short_to_tell_a_stranger(
    person: Pictures, tmp_path: Path, start: int
) -> None:
    moment = reshaped(person[start : start + FPS], 1.33)
    tracked = track_video(film(tmp_path / "clip.mp4", moment, NOBODY, person))
    assert tracked.other_count == 0
    assert sum(params is not None for params in tracked.parameters) == len(person)


def test_who_is_seen_in_moments_only_loses_the_clip_to_no_stranger(
    person: Pictures, tmp_path: Path
) -> None:
    stranger = reshaped(person[:17], 1.33)
    parts = [part for _ in range(4) for part in (person[::4], NOBODY)]  # 2.4 s each
    path = film(tmp_path / "clip.mp4", *parts, stranger)
    tracked = track_video(path)
    assert tracked.other_count == len(stranger)
    assert all(params is None for params in tracked.parameters[-len(stranger) :])


def test_a_clip_of_three_people_is_nobodys(person: Pictures, tmp_path: Path) -> None:
    others = reshaped(person[:15], 1.33), reshaped(person[:15], 0.75)
    path = film(tmp_path / "clip.mp4", others[0], NOBODY, person[:15], NOBODY, others[1])
    with pytest.raises(InvalidInputError, match="one after the other") as caught:
        track_video(path)
    assert caught.value.reason == "SEVERAL_PEOPLE"
