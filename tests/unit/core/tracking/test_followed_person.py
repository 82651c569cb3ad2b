# SPDX-License-Identifier: Apache-2.0
"""Who is followed where several people are seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from styleavatar_core.data.video import read_frames
from styleavatar_core.tracking.landmarks import LandmarkDetector
from styleavatar_core.tracking.looks import FourLooksDetector
from styleavatar_core.tracking.tracker import Tracker

if TYPE_CHECKING:
    from styleavatar_core.sample.clip import SampleClip


@pytest.fixture(scope="module")
def frames(sample_clip: SampleClip) -> list[np.ndarray]:
    return [frame for index, _, frame in read_frames(sample_clip.path) if index < 30]


class Places:
    """Says on which side the face is that a detector follows."""

    def __init__(self, detector: LandmarkDetector, fps: int) -> None:
        self._detector, self._fps, self._count = detector, fps, 0

    def of(self, picture: np.ndarray) -> str | None:
        self._count += 1
        found = self._detector.detect(picture, self._count / self._fps)
        return None if found is None else "left" if found[:, 0].mean() < 256 else "right"


def beside(left: np.ndarray | None, right: np.ndarray | None) -> np.ndarray:
    """Two people side by side, the left one larger; None is an empty place."""
    picture = np.full((256, 512, 3), 120, np.uint8)
    if left is not None:
        picture[:, :256] = left
    if right is not None:
        picture[40:232, 300:492] = cv2.resize(right, (192, 192), interpolation=cv2.INTER_AREA)
    return picture


@pytest.mark.parametrize("make", [LandmarkDetector, FourLooksDetector])
def test_one_person_is_kept_whoever_else_is_there(
    frames: list[np.ndarray], make: type[LandmarkDetector]
) -> None:
    with make() as detector:
        place = Places(detector, fps=25)
        assert [place.of(beside(frame, frame)) for frame in frames[:4]] == ["left"] * 4
        # The person is hidden: the other one is not taken for them, and they are found again.
        assert [place.of(beside(None, frame)) for frame in frames[4:8]] == [None] * 4
        assert [place.of(beside(frame, frame)) for frame in frames[8:12]] == ["left"] * 4
    with make() as detector:
        place = Places(detector, fps=25)
        assert [place.of(beside(None, frame)) for frame in frames[:3]] == ["right"] * 3
        # A larger face that comes later changes nothing.
        assert [place.of(beside(frame, frame)) for frame in frames[3:9]] == ["right"] * 6


@pytest.mark.parametrize("fps", [5, 25])
def test_who_is_hidden_is_waited_for_three_seconds_at_every_rate(
    frames: list[np.ndarray], fps: int
) -> None:
    with LandmarkDetector() as detector:
        place = Places(detector, fps)
        assert place.of(beside(frames[0], frames[0])) == "left"
        alone = beside(None, frames[0])
        assert {place.of(alone) for _ in range(int(2.9 * fps))} == {None}
        assert place.of(beside(frames[1], frames[1])) == "left"
        # Who is alone for longer is the one to follow, also when the other comes back.
        waiting = [place.of(alone) for _ in range(int(3.5 * fps))]
        assert waiting.index("right") in (3 * fps, 3 * fps + 1)
        assert place.of(beside(frames[1], frames[1])) == "right"


def test_who_sat_beside_a_person_that_left_is_another_one(frames: list[np.ndarray]) -> None:
    tracker, people = Tracker(), []

    def show(left: np.ndarray | None, right: np.ndarray, count: int) -> np.ndarray:
        picture = beside(left, right[:, 32:224])  # a wider head
        for _ in range(count):
            params = tracker.track(picture, 0.04 * (len(people) + 1))
            people.append(params.person_index if params else None)
        return tracker.identity.identity

    first = show(frames[0], frames[0], 190)
    second = show(None, frames[0], 200)
    tracker.close()
    assert people[:190] == [0] * 190
    assert people[190:260] == [None] * 70  # hidden, as far as anybody knows
    assert people[-1] == 1
    assert np.abs(second - first).max() > 0.5


def test_nobody_came_before_the_first_person_however_late_they_come(
    frames: list[np.ndarray],
) -> None:
    tracker = Tracker()
    for index in range(1, 90):
        assert tracker.track(np.zeros((256, 256, 3), np.uint8), index / 25) is None
    params = tracker.track(frames[0], 3.7)
    tracker.close()
    assert params is not None
    assert params.person_index == 0


@pytest.mark.parametrize("scale", [0.5, 0.75, 2.0])
def test_a_person_is_kept_when_a_call_changes_the_size_of_its_frames(
    frames: list[np.ndarray], scale: float
) -> None:
    with LandmarkDetector() as detector:
        picture = beside(None, frames[0])
        before = detector.detect(picture, 0.1)
        assert before is not None
        after = detector.detect(cv2.resize(picture, None, fx=scale, fy=scale), 0.14)
        assert after is not None
        assert np.abs(after / scale - before)[:, :2].max() < 4
        # The person is still that one, and not whoever is larger.
        both = cv2.resize(beside(frames[0], frames[0]), None, fx=0.9, fy=0.9)
        kept = detector.detect(both, 0.18)
        assert kept is not None
        assert kept[:, 0].min() > both.shape[1] / 2


def test_a_smaller_face_behind_the_hidden_person_is_not_theirs(frames: list[np.ndarray]) -> None:
    behind = np.full((256, 256, 3), 120, np.uint8)
    behind[56:200, 56:200] = cv2.resize(frames[0], (144, 144), interpolation=cv2.INTER_AREA)
    with LandmarkDetector() as detector:
        assert detector.detect(behind, 0.1) is not None
    with LandmarkDetector() as detector:
        assert detector.detect(frames[0], 0.1) is not None
        assert [detector.detect(behind, 0.1 + k / 25) for k in range(1, 6)] == [None] * 5
        assert detector.detect(frames[0], 0.4) is not None
