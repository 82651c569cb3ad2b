# SPDX-License-Identifier: Apache-2.0
"""The film of a drive is as long as the driver's clip, whatever was dropped."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from av.error import FFmpegError
from styleavatar_client.drive_command import Recorder
from styleavatar_client.frames import AvatarFrame

from styleavatar_core.data.video import probe, read_frames
from styleavatar_core.errors import InvalidInputError


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


def test_a_film_that_cannot_go_on_can_be_played_to_there(tmp_path: Path) -> None:
    path = tmp_path / "avatar.mp4"
    larger = AvatarFrame(2, 0.08, np.zeros((64, 64, 3), np.uint8), latency_s=0.1)
    with pytest.raises(InvalidInputError, match="shape"):
        filmed(path, answer(0, 50), answer(1, 200), larger)
    values = [float(frame.mean()) for _, _, frame in read_frames(path)]
    assert values == pytest.approx([50, 200], abs=3)


def test_a_disk_that_takes_nothing_holds_up_no_reader_and_its_failure_is_told(
    tmp_path: Path,
) -> None:
    path = tmp_path / "avatar.mp4"
    os.mkfifo(path)  # opening it waits for a reader, and there is no seeking in it
    recorder = Recorder(path, 25.0)
    with pytest.raises(FFmpegError), recorder:
        opened = film_into_a_pipe(recorder, path)
    os.close(opened)


def film_into_a_pipe(recorder: Recorder, path: Path) -> int:
    for index in range(5):
        recorder.add(answer(index, 50))
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)
