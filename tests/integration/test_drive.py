# SPDX-License-Identifier: Apache-2.0
"""Real tracking, a real (untrained) avatar, and ``styleavatar drive`` in front of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from styleavatar_client.errors import ClientError
from styleavatar_client.streaming import AvatarFrame, AvatarStreams, DriverFrame, StoredFrame
from typer.testing import CliRunner

from services.common.image_codec import encode_image
from styleavatar_core.cli.main import build_app
from styleavatar_core.data.video import read_frames
from styleavatar_core.data.video_writer import VideoWriter
from styleavatar_core.types import ByteArray
from tests.fakes.nano_bundle import write_nano_bundle
from tests.integration.service_process import ServiceProcess, free_port

FRAME_COUNT = 15


@pytest.fixture(scope="module")
def portrait() -> ByteArray:
    """A public-domain NASA photograph of Eileen Collins, cut around the head; (256, 256, 3)."""
    return np.ascontiguousarray(skimage.data.astronaut()[:256, 96:352])


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ServiceProcess]]:
    data = tmp_path_factory.mktemp("data")
    write_nano_bundle(data / "avatars" / "anna")
    rendering = ServiceProcess("rendering", data, backend="torch")
    tracking = ServiceProcess("tracking", data, rendering_address=rendering.address)
    try:
        yield [process.wait_until_serving() for process in (tracking, rendering)]
    finally:
        assert [process.stop() for process in (tracking, rendering)] == [0, 0]
        for text in ("Traceback", "AttributeError", "W0000"):
            assert text not in tracking.log + rendering.log


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, portrait: ByteArray) -> Path:
    """The photograph, drifting to the right, with one black frame."""
    path = tmp_path_factory.mktemp("clip") / "driver.mp4"
    with VideoWriter(path, 25.0, 256, 256) as writer:
        for index in range(FRAME_COUNT):
            frame = np.roll(portrait, 2 * index, axis=1)
            writer.write(np.zeros_like(frame) if index == 7 else frame)
    return path


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(build_app(), ["drive", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_every_frame_gives_one_picture(
    services: list[ServiceProcess], clip: Path, tmp_path: Path
) -> None:
    output = tmp_path / "avatar.mp4"
    code, stdout, stderr = run(
        *("--avatar", "anna", "--video", clip, "--every-frame", "--driver", "same"),
        *("--tracking", services[0].address, "--json", "-o", output),
    )
    assert code == 0, stderr
    figures = json.loads(stdout)
    assert figures["answers_count"] == FRAME_COUNT
    assert (figures["held_count"], figures["failed_count"], figures["dropped_count"]) == (1, 0, 0)
    assert figures["latency_ms_p50"] > 0
    assert figures["synthetic"]
    assert sum(1 for _ in read_frames(output)) == FRAME_COUNT


def test_live_driving_accounts_for_every_frame(
    services: list[ServiceProcess], clip: Path, tmp_path: Path
) -> None:
    output = tmp_path / "avatar.mp4"
    code, stdout, stderr = run(
        *("--avatar", "anna", "--video", clip, "--tracking", services[0].address, "--json"),
        *("-o", output),
    )
    assert code == 0, stderr
    figures = json.loads(stdout)
    assert figures["answers_count"] >= 1
    assert figures["answers_count"] + figures["dropped_count"] == FRAME_COUNT
    assert sum(1 for _ in read_frames(output)) == FRAME_COUNT


def test_answers_keep_index_and_time(services: list[ServiceProcess], portrait: ByteArray) -> None:
    frames = [DriverFrame(10 * index, 0.04 * index, portrait) for index in range(8)]
    with AvatarStreams(services[0].address) as streams:
        answers = list(streams.drive("anna", frames, every_frame=True))
    assert [answer.frame_index for answer in answers] == [10 * index for index in range(8)]
    assert [answer.capture_time_s for answer in answers] == pytest.approx(
        [0.04 * index for index in range(8)]
    )
    for answer in answers:
        assert answer.synthetic
        assert answer.image is not None
        assert answer.image.shape == (128, 128, 3)
        assert {"tracking", "network", "total"} <= set(answer.stage_ms)


def test_frames_may_come_stored_and_one_that_cannot_be_read_says_why(
    services: list[ServiceProcess], portrait: ByteArray
) -> None:
    frames = [
        StoredFrame(0, 0.0, encode_image(portrait, "jpeg"), "jpeg"),
        StoredFrame(1, 0.04, b"\0\0\1\x41", "h264"),  # its key frame was never sent
        DriverFrame(2, 0.08, portrait),
    ]
    with AvatarStreams(services[0].address) as streams:
        answers = list(streams.drive("anna", frames, every_frame=True))
    assert [answer.reason for answer in answers] == ["", "KEY_FRAME_NEEDED", ""]
    assert [answer.held for answer in answers] == [False] * 3
    assert answers[1].capture_time_s == pytest.approx(0.04)


def test_an_early_end_leaves_the_services_well(
    services: list[ServiceProcess], portrait: ByteArray
) -> None:
    frames = (DriverFrame(index, 0.04 * index, portrait) for index in range(10_000))
    with AvatarStreams(services[0].address) as streams:
        answers = streams.drive("anna", frames)
        assert next(answers).image is not None
        answers.close()
        again = streams.drive("anna", [DriverFrame(0, 0.0, portrait)], every_frame=True)
        assert len(list(again)) == 1


def test_a_failing_source_is_raised_where_the_caller_is(
    services: list[ServiceProcess], portrait: ByteArray
) -> None:
    def source() -> Iterator[DriverFrame]:
        yield DriverFrame(0, 0.0, portrait)
        raise OSError("the camera is gone")

    with (
        AvatarStreams(services[0].address) as streams,
        pytest.raises(OSError, match="the camera is gone"),
    ):
        list(streams.drive("anna", source(), every_frame=True))


@pytest.mark.parametrize(("time_s", "has_image"), [(0.2, False), (float("nan"), True)])
def test_a_frame_that_cannot_be_sent_is_raised_where_the_caller_is(
    services: list[ServiceProcess], portrait: ByteArray, time_s: float, has_image: bool
) -> None:
    good = [DriverFrame(index, 0.04 * index, portrait) for index in range(5)]
    bad = DriverFrame(5, time_s, portrait if has_image else None)  # as of a camera that lost one
    answers: list[AvatarFrame] = []
    with (
        AvatarStreams(services[0].address) as streams,
        pytest.raises(ValueError, match="frame 5 cannot be sent"),
    ):
        answers.extend(streams.drive("anna", [*good, bad], every_frame=True))
    assert len(answers) == 5


def test_an_unknown_avatar_gets_a_sentence(services: list[ServiceProcess], clip: Path) -> None:
    code, _, stderr = run(
        *("--avatar", "nobody", "--video", clip, "--tracking", services[0].address)
    )
    assert code == 2
    assert "There is no avatar 'nobody'" in stderr
    assert "Type: curl http://127.0.0.1:8080/v1/avatars" in stderr
    assert "ListAvatars" not in stderr
    assert "Traceback" not in stderr


def test_no_service_gets_a_sentence(portrait: ByteArray) -> None:
    address = f"127.0.0.1:{free_port()}"
    with (
        AvatarStreams(address) as streams,
        pytest.raises(ClientError, match="styleavatar serve") as caught,
    ):
        list(streams.drive("anna", [DriverFrame(0, 0.0, portrait)]))
    assert caught.value.code == "UNAVAILABLE"


def test_a_gain_out_of_range_gets_a_sentence(
    services: list[ServiceProcess], portrait: ByteArray
) -> None:
    frames = [DriverFrame(0, 0.0, portrait)]
    with AvatarStreams(services[0].address) as streams:
        with pytest.raises(ClientError, match=r"gain of mouth is 5\.0"):
            list(streams.drive("anna", frames, every_frame=True, gains={"mouth": 5.0}))
        assert list(streams.drive("anna", frames, every_frame=True, gains={"mouth": 1.5}))
