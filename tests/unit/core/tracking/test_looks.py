# SPDX-License-Identifier: Apache-2.0
"""Four looks at a picture: one answer, whichever way the picture is turned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from styleavatar_core.data.video import read_frames
from styleavatar_core.face3d import landmark_groups as groups
from styleavatar_core.tracking.landmarks import LandmarkDetector
from styleavatar_core.tracking.looks import (
    LOOKS,
    FourLooksDetector,
    Look,
    Looker,
    mirror_partners,
)

if TYPE_CHECKING:
    from styleavatar_core.sample.clip import SampleClip

# From the top of the forehead to the chin.
MIDLINE = (10, 151, 9, 8, 168, 6, 197, 195, 5, 4, 1, 2, 164, 0, 17, 18, 200, 199, 152)
FRAME = np.zeros((100, 200, 3), np.uint8)


def test_partners_are_on_the_other_side() -> None:
    partners = mirror_partners()
    assert np.array_equal(partners[partners], np.arange(groups.LANDMARK_COUNT))
    for left, right in (
        (groups.LEFT_EYE, groups.RIGHT_EYE),
        (groups.LEFT_BROW, groups.RIGHT_BROW),
    ):
        assert partners[list(left)].tolist() == list(right)
    assert set(partners[list(groups.LEFT_IRIS)]) == set(groups.RIGHT_IRIS)
    middle = list(MIDLINE)
    assert partners[middle].tolist() == middle


@pytest.mark.parametrize("look", LOOKS)
def test_what_a_look_shows_is_found_where_it_is(look: Look) -> None:
    frame = np.zeros((180, 240, 3), np.uint8)
    frame[90:96, 150:158] = 255
    rows, columns = np.nonzero(look.picture(frame)[..., 0] > 127)
    spot = np.array([columns.mean() + 0.5, rows.mean() + 0.5, 4.0], np.float32)
    back = look.landmarks(np.tile(spot, (478, 1)), 240, 180)
    assert back[0, :2] == pytest.approx([154, 93], abs=0.3)
    assert back[0, 2] == pytest.approx(4 / 0.88 if look.is_tilted else 4)


def test_a_clip_and_its_mirror_image_have_mirrored_landmarks(sample_clip: SampleClip) -> None:
    frames = [frame for index, _, frame in read_frames(sample_clip.path) if index < 14]

    def differences(make: type[LandmarkDetector]) -> np.ndarray:
        apart = []
        with make() as one, make() as other:
            for index, frame in enumerate(frames):
                found = one.detect(frame, index / 25)
                turned = other.detect(frame[:, ::-1], index / 25)
                assert found is not None
                assert turned is not None
                back = Look(is_mirrored=True, is_tilted=False).landmarks(turned, 256, 256)
                apart.append(np.abs(found - back)[:, :2].mean())
        return np.array(apart[5:])  # regions of interest settle within a few frames

    assert differences(LandmarkDetector).mean() > 0.25
    assert differences(FourLooksDetector).max() < 0.02


class Answer:
    """A follower that says what it was given."""

    def __init__(self, *faces: np.ndarray) -> None:
        self._faces = list(faces)

    def landmarks(self, frame: np.ndarray) -> list[np.ndarray]:
        assert frame.flags.c_contiguous
        return self._faces

    def close(self) -> None: ...


@pytest.fixture
def face() -> np.ndarray:
    return np.random.default_rng(0).uniform(40, 60, (478, 3)).astype(np.float32)


def seen_mirrored(face: np.ndarray) -> np.ndarray:
    return Look(is_mirrored=True, is_tilted=False).landmarks(face, 200, 100)


def test_looks_that_find_the_face_are_averaged(face: np.ndarray) -> None:
    beside = face + np.float32([1, 0, 0])
    nothing, mirrored = Answer(), Answer(seen_mirrored(beside))
    (both,) = Looker([Answer(face), nothing, mirrored, nothing]).landmarks(FRAME)
    assert both == pytest.approx(face + [0.5, 0, 0], abs=1e-3)
    (alone,) = Looker([nothing, nothing, mirrored, nothing]).landmarks(FRAME)
    assert alone == pytest.approx(beside, abs=1e-3)
    assert alone.dtype == np.float32
    assert Looker([nothing] * 4).landmarks(FRAME) == []


def test_faces_of_two_people_are_not_averaged(face: np.ndarray) -> None:
    other = Answer(seen_mirrored(face + np.float32([60, 0, 0])))
    assert Looker([Answer(face), Answer(), other, Answer()]).landmarks(FRAME) == []
