# SPDX-License-Identifier: Apache-2.0
"""Video in, avatar, video out: every frame answered once, in order, and said to be synthetic."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from styleavatar_client.errors import ClientError
from styleavatar_client.streaming import AvatarStreams, DriverFrame

from services.supervisor.supervisor import Supervisor
from styleavatar_core.data.video import read_frames
from styleavatar_core.sample.clip import SampleClip
from tests.e2e.readme import commands, program, python_blocks

pytestmark = pytest.mark.timeout(900)


def first_frames(clip: SampleClip, count: int) -> list[DriverFrame]:
    frames = zip(range(count), read_frames(clip.path), strict=False)
    return [DriverFrame(100 + i, time_s, image) for i, (_, time_s, image) in frames]


def test_every_frame_is_answered_once_and_in_order(
    system: Supervisor, avatar_id: str, sample_clip: SampleClip
) -> None:
    drivers = first_frames(sample_clip, 40)
    with AvatarStreams(system.endpoints.tracking_address) as streams:
        answers = list(streams.drive(avatar_id, drivers, every_frame=True, same_person=True))
    assert [answer.frame_index for answer in answers] == [d.frame_index for d in drivers]
    assert all(answer.failure == "" and answer.synthetic for answer in answers)
    images = [answer.image for answer in answers if answer.image is not None]
    assert [image.shape for image in images] == [(128, 128, 3)] * len(drivers)
    # The avatar moves: it is not one picture shown again and again.
    assert np.abs(images[0].astype(int) - images[-1]).max() > 10


def test_the_readmes_streaming_example_runs(
    system: Supervisor, avatar_id: str, sample_clip: SampleClip
) -> None:
    (block,) = [block for block in python_blocks() if "AvatarStreams" in block]
    block = block.replace("AVATAR_ID", avatar_id).replace("other.mp4", str(sample_clip.path))
    block = block.replace("127.0.0.1:50051", system.endpoints.tracking_address)
    names = {"read_frames": read_frames}
    exec(block, names)
    assert names["answer"].synthetic is True
    assert names["answer"].frame_index == len(sample_clip.parameters) - 1


def test_an_unknown_avatar_is_refused_with_a_sentence(
    system: Supervisor, sample_clip: SampleClip
) -> None:
    with (
        AvatarStreams(system.endpoints.tracking_address) as streams,
        pytest.raises(ClientError, match="avatar-nobody"),
    ):
        list(streams.drive("avatar-nobody", first_frames(sample_clip, 2), every_frame=True))


def test_the_readmes_drive_command_writes_every_frame(
    system: Supervisor, avatar_id: str, sample_clip: SampleClip, tmp_path: Path
) -> None:
    (line,) = [line for line in commands() if " drive " in line]
    line = line.replace("AVATAR_ID", avatar_id).replace("other.mp4", str(sample_clip.path))
    arguments = [*program(line), "--tracking", system.endpoints.tracking_address]
    result = subprocess.run(
        arguments, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    written = [frame for _, _, frame in read_frames(tmp_path / "driven.mp4")]
    assert len(written) == len(sample_clip.parameters)
    assert "synthetic" in result.stdout
