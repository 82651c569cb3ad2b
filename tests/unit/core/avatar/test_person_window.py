# SPDX-License-Identifier: Apache-2.0
"""Heads beyond the trained range: how their place is split, and how far they may go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from styleavatar_core.avatar.manifest import AvatarManifest
from styleavatar_core.avatar.person_window import PersonWindow
from styleavatar_core.avatar.reenactment import Retargeter
from styleavatar_core.avatar.statistics import ParameterStatistics
from styleavatar_core.avatar.trained_range import Reach, TrainedRange
from styleavatar_core.evaluation.moves import shift_head
from styleavatar_core.face3d.camera import (
    quaternion_from_rotation_vector,
    rotation_vector_from_quaternion,
)
from styleavatar_core.face3d.tilt import tilt_head
from styleavatar_core.networks import get_preset
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.types import CropBox, FaceParameters
from tests.fakes.bundle import fake_manifest

NANO = get_preset("nano").to_dict()
SCALE = 0.5
SEEN = 0.1  # the head was within this of the middle, model units
TEXEL = 2 / (64 * SCALE)  # of nano, model units


def head(x: float, y: float = 0.0) -> FaceParameters:
    return FaceParameters(
        "builtin-3",
        np.array([1, 0, 0, 0], np.float32),
        np.array([x, y, 0.25], np.float32),
        SCALE,
        np.zeros(52, np.float32),
        np.zeros((2, 2), np.float32),
    )


STATISTICS = ParameterStatistics.from_parameters(
    [head(-SEEN, -SEEN), head(SEEN, SEEN)], CropBox(0.0, 0.0, 1.0)
)


def manifest(statistics: ParameterStatistics = STATISTICS, **settings: Any) -> AvatarManifest:
    return fake_manifest(
        0,
        generator=NANO,
        statistics=statistics.to_dict(),
        training={"settings": TrainConfig(**settings).to_dict()},
    )


def test_where_the_head_was_seen_nothing_moves() -> None:
    wanted = head(0.05, -SEEN)
    placed, window = PersonWindow(manifest()).place(wanted)
    assert placed is wanted
    assert window == (0, 0)


def test_place_and_window_together_are_where_the_head_shall_be() -> None:
    window_of = PersonWindow(manifest())
    for x, y in np.random.default_rng(0).uniform(-1.0, 1.0, (50, 2)):
        wanted = head(x, y)
        placed, window = window_of.place(wanted)
        assert np.abs(placed.translation[:2]).max() <= SEEN + TEXEL / 2 + 1e-5
        np.testing.assert_allclose(
            placed.translation[:2] - np.multiply(window, TEXEL), [x, y], atol=1e-5
        )
        assert placed.translation[2] == wanted.translation[2]


def test_far_beyond_the_head_is_drawn_where_it_often_was() -> None:
    often = [head(-SEEN), *[head(0.0)] * 6, head(SEEN)]  # a standard deviation of SEEN / 2
    statistics = ParameterStatistics.from_parameters(often, CropBox(0.0, 0.0, 1.0))
    window_of = PersonWindow(manifest(statistics))
    for x, drawn in ((1.0, 1.0), (1.5, 1.0), (2.0, 0.5), (5.0, 0.5), (-5.0, -0.5)):
        placed, window = window_of.place(head(x * SEEN))
        assert abs(placed.translation[0] - drawn * SEEN) <= TEXEL / 2 + 1e-5
        assert placed.translation[0] - window[0] * TEXEL == pytest.approx(x * SEEN, abs=1e-5)


NECK = 0.5  # model units to the side for each radian of yaw


def turned(yaw: float, x: float = 0.0, roll: float = 0.0) -> FaceParameters:
    """A head that turns about its neck, ``x`` aside of where that brings it."""
    rotation = quaternion_from_rotation_vector(np.array([0.0, yaw, roll]))
    return replace(head(NECK * yaw + x), rotation=rotation)


TURNING = ParameterStatistics.from_parameters(
    [turned(yaw) for yaw in np.linspace(-0.4, 0.4, 41)], CropBox(0.0, 0.0, 1.0)
)
STD = float(TURNING.translation.std[0])


def test_a_place_that_was_seen_is_beyond_it_with_another_rotation() -> None:
    window_of = PersonWindow(manifest(TURNING))
    for yaw in (-0.4, -0.1, 0.0, 0.3):
        for x in (0.0, 1.9 * STD, -1.9 * STD):
            if abs(NECK * yaw + x) <= 0.2:
                assert window_of.place(turned(yaw, x))[1] == (0, 0)
    wanted = turned(-0.4, 0.4)  # as far to the right as any was, but with the yaw of the left
    placed, window = window_of.place(wanted)
    assert window[0] < 0
    assert placed.translation[0] - window[0] * TEXEL == pytest.approx(0.2, abs=1e-5)
    # As far within the border of two deviations as it was beyond it, but for one.
    inside = 2 * STD - max(0.0, 0.4 - 3 * STD)
    assert placed.translation[0] == pytest.approx(-0.2 + inside, abs=TEXEL / 2 + 1e-5)
    older = manifest(TURNING)  # of before places were fitted to rotations
    del older.statistics["place_by_rotation"]
    assert PersonWindow(older).place(wanted)[1] == (0, 0)


def test_a_head_tilted_about_the_neck_is_where_training_had_it() -> None:
    window_of = PersonWindow(manifest(TURNING))
    for yaw, degrees in ((0.0, 15.0), (0.3, 15.0), (-0.35, -12.0)):
        tilted = tilt_head(turned(yaw), degrees)
        assert abs(tilted.translation[0]) > 0.2  # farther than any head that was not tilted
        assert window_of.place(tilted)[1] == (0, 0)
    moved = shift_head(tilt_head(turned(0.0), 15.0), (0.1, 0.0))
    placed, window = window_of.place(moved)
    assert window[0] < 0
    np.testing.assert_allclose(
        placed.translation[:2] - np.multiply(window, TEXEL), moved.translation[:2], atol=1e-5
    )


def test_the_window_stays_on_the_canvas() -> None:
    placed, window = PersonWindow(manifest()).place(head(3.0, -3.0))
    assert window == (-16, 16)  # a quarter of 64 texels
    np.testing.assert_allclose(placed.translation[:2], [3.0 - 16 * TEXEL, 16 * TEXEL - 3.0])


@pytest.mark.parametrize(
    ("known", "reach"),
    [
        (manifest(), 0.25),
        (manifest(centered_share=1.0, apart_share=0.0), 0.0),
        (fake_manifest(0, generator=NANO, training={"settings": {"centered_share": 0.5}}), 0.25),
        (fake_manifest(0), 0.0),  # nothing is known of its training
    ],
)
def test_windows_reach_as_far_as_training_moved_them(known: AvatarManifest, reach: float) -> None:
    assert known.window_reach == reach
    if reach == 0.0:
        assert PersonWindow(known).place(head(3.0))[1] == (0, 0)


def test_avatars_reach_as_far_as_training_tilted_persons() -> None:
    assert manifest(apart_share=0.2, tilt_share=0.5, tilt_deg=15.0).reach == Reach(0.25, 15.0)
    assert manifest(tilt_share=0.0).reach == Reach(0.25)
    assert manifest(apart_share=0.0).reach == Reach(0.25)
    older = {"settings": {"centered_share": 0.5, "apart_share": 0.2}}  # of before persons tilted
    assert fake_manifest(0, generator=NANO, training=older).reach == Reach(0.25)


def test_heads_tilt_as_far_beyond_what_was_seen_as_training_had_it_and_no_further() -> None:
    seen, tilted = TrainedRange(STATISTICS), TrainedRange(STATISTICS, reach=Reach(0.0, 15.0))
    for degrees in (14.9, -14.9, 8.0):
        wanted = replace(tilt_head(head(0.0), degrees), translation=head(0.0).translation)
        kept, is_clamped = tilted.hold(wanted)
        assert not is_clamped
        np.testing.assert_allclose(kept.rotation, wanted.rotation, atol=1e-6)
        assert seen.hold(wanted)[1]
    far = replace(tilt_head(head(0.0), 40.0), translation=head(0.0).translation)
    kept, is_clamped = tilted.hold(far)
    assert is_clamped
    roll = np.rad2deg(rotation_vector_from_quaternion(kept.rotation)[2])
    assert 15.0 < roll < 16.0


@pytest.mark.parametrize("scale", [SCALE / 2, 2 * SCALE])
def test_a_head_of_an_unseen_size_goes_as_far_as_the_one_that_is_drawn(scale: float) -> None:
    held = TrainedRange(STATISTICS, reach=Reach(window=0.25))
    kept, _ = held.hold(replace(head(5.0), scale=scale))
    usual, _ = held.hold(head(5.0))
    assert kept.scale == pytest.approx(SCALE, abs=0.02)
    assert kept.translation[0] == pytest.approx(usual.translation[0], rel=0.05)
    placed, _ = PersonWindow(manifest()).place(kept)
    assert abs(placed.translation[0]) <= SEEN + TEXEL + 0.2


def test_heads_may_go_as_far_as_windows_reach_and_no_further() -> None:
    room = 0.25 * 2 / SCALE
    held = TrainedRange(STATISTICS, reach=Reach(window=0.25))
    for x in (SEEN, SEEN + 0.5 * room, SEEN + room):
        kept, is_clamped = held.hold(head(x))
        assert not is_clamped
        assert kept.translation[0] == pytest.approx(x, abs=1e-6)
    bent, is_clamped = held.hold(head(SEEN + 2 * room, -SEEN - 0.9 * room))
    assert is_clamped
    assert SEEN + room < bent.translation[0] < SEEN + 1.1 * room
    assert bent.translation[1] == pytest.approx(-SEEN - 0.9 * room, abs=1e-6)
    without, is_clamped = TrainedRange(STATISTICS).hold(head(SEEN + 0.5 * room))
    assert is_clamped
    assert without.translation[0] < 2 * SEEN


def test_a_driver_moves_the_head_beyond_what_the_avatar_saw() -> None:
    driver = [replace(head(x), scale=0.3) for x in np.linspace(0.0, 0.6, 12)]
    still, moving = (Retargeter(STATISTICS, reach=reach) for reach in (Reach(), manifest().reach))
    assert [still.retarget(frame) for frame in driver][-1].clamped
    last = [moving.retarget(frame) for frame in driver][-1]
    assert not last.clamped
    assert last.parameters.translation[0] > 4 * SEEN
