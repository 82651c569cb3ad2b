# SPDX-License-Identifier: Apache-2.0
"""The film of a drive is as long as the driver's clip, whatever was dropped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from styleavatar_client.drive_command import Recorder
from styleavatar_client.frames import AvatarFrame

from styleavatar_core.data.video import probe, read_frames


def answer(frame_index: int, value: int | None) -> AvatarFrame:
    image = None if value is None else np.full((32, 32, 3), value, np.uint8)
    return AvatarFrame(frame_index, 0.04 * frame_index, image, latency_s=0.1)


def filmed(path: Path, *answers: AvatarFrame) -> list[float]:
    """The mean value of each frame of the film."""
    with Recorder(path, 25.0) as recorder:
        for each in answers:
            recorder.add(each)
    return [float(frame.mean()) for _, _, frame in read_frames(path)]


def test_each_picture_stands_at_its_frame_and_until_the_next(tmp_path: Path) -> None:
    path = tmp_path / "films" / "avatar.mp4"
    values = filmed(path, answer(2, 50), answer(3, 200), answer(6, 100))
    assert values == pytest.approx([50, 50, 50, 200, 200, 200, 100], abs=3)
    assert probe(path, min_duration_s=0.0).fps == 25


def test_for_a_failed_frame_stands_the_picture_before(tmp_path: Path) -> None:
    path = tmp_path / "avatar.mp4"
    values = filmed(path, answer(0, None), answer(1, 50), answer(2, None), answer(3, 200))
    assert values == pytest.approx([50, 50, 50, 200], abs=3)
    assert filmed(path, answer(0, 50), answer(1, None)) == pytest.approx([50, 50], abs=3)
