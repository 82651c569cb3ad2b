# SPDX-License-Identifier: Apache-2.0
"""A stream whose node stops or dies goes on with another, by the client library."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from styleavatar_client.errors import ClientError
from styleavatar_client.streaming import (
    AvatarFrame,
    AvatarStreams,
    Credentials,
    DriverFace,
    DriverFrame,
    MissingFace,
    Patience,
    PictureOptions,
)

from tests.fakes.bundle import write_fake_bundle
from tests.fakes.renderer import read_mark
from tests.integration.marked_rendering import measured
from tests.integration.service_process import ServiceProcess, free_port
from tests.integration.stream_helpers import face, picture

MARK = 90


def endless(count: int = 100_000) -> Iterator[DriverFrame]:
    for index in range(count):
        yield DriverFrame(index, 0.04 * index, picture(102))


def rendering(data: Path) -> ServiceProcess:
    return ServiceProcess("rendering", data, renderer="tests.fakes.renderer:FakeRenderer")


def tracking(data: Path, rendering_address: str) -> ServiceProcess:
    return ServiceProcess(
        "tracking",
        data,
        tracker="tests.fakes.tracker:open_fake_tracker",
        rendering_address=rendering_address,
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_fake_bundle(tmp_path / "avatars" / "anna", MARK)
    return tmp_path


def assert_own(answers: list[AvatarFrame]) -> None:
    for answer in answers:
        assert answer.image is not None
        assert read_mark(answer.image) == (MARK, answer.frame_index % 256, 40)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_lost_tracking_node_costs_a_live_stream_no_more_than_frames(
    data: Path, number: signal.Signals
) -> None:
    node = rendering(data)
    fronts = [tracking(data, node.address), tracking(data, node.address)]
    for service in (node, *fronts):
        service.wait_until_serving()
    answers: list[AvatarFrame] = []
    with AvatarStreams([front.address for front in fronts]) as streams:
        for answer in streams.drive("anna", endless(), same_person=True):
            answers.append(answer)
            if len(answers) == 10:
                fronts[0].process.send_signal(number)
                fronts[0].process.wait(30)
            if len(answers) == 40:
                break
    indices = [answer.frame_index for answer in answers]
    assert indices == sorted(set(indices))
    assert_own(answers)
    assert [service.stop() for service in (fronts[1], node)] == [0, 0]
    fronts[0].stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_lost_rendering_node_costs_a_caller_with_faces_no_frame(
    data: Path, number: signal.Signals
) -> None:
    nodes = [rendering(data), rendering(data)]
    for node in nodes:
        node.wait_until_serving()
    faces = (DriverFace(face(index, 0.4)) for index in range(60))
    answers: list[AvatarFrame] = []
    with AvatarStreams([node.address for node in nodes]) as streams:
        for answer in streams.render("anna", faces, every_frame=True, same_person=True):
            answers.append(answer)
            if len(answers) == 20:
                nodes[0].process.send_signal(number)
    assert [answer.frame_index for answer in answers] == list(range(60))
    assert_own(answers)
    nodes[0].process.wait(30)
    assert nodes[1].stop() == 0
    nodes[0].stop()


def test_streams_of_one_client_go_on_each_for_itself(data: Path) -> None:
    nodes = [rendering(data), rendering(data)]
    for node in nodes:
        node.wait_until_serving()
    answers: list[list[AvatarFrame]] = [[], []]

    def faces() -> Iterator[DriverFace]:
        for index in range(60):
            time.sleep(0.02)
            yield DriverFace(face(index, 0.4))

    def drive(own: list[AvatarFrame]) -> None:
        own.extend(streams.render("anna", faces(), every_frame=True, same_person=True))

    with AvatarStreams([node.address for node in nodes]) as streams, ThreadPoolExecutor() as pool:
        driving = [pool.submit(drive, own) for own in answers]
        time.sleep(0.7)
        nodes[0].process.send_signal(signal.SIGTERM)
        for task in driving:
            task.result()
    for own in answers:
        assert [answer.frame_index for answer in own] == list(range(60))
        assert_own(own)
    assert [node.stop() for node in nodes] == [0, 0]


def test_a_silent_node_does_not_use_up_the_search_for_another(data: Path) -> None:
    faces = (DriverFace(face(index, 0.4)) for index in range(60))
    answers: list[AvatarFrame] = []
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,  # like a node that has stopped dead
        rendering(data) as lost,
        rendering(data) as left,
    ):
        first, last = (node.wait_until_serving().address for node in (lost, left))
        between = f"127.0.0.1:{silent.getsockname()[1]}"
        with AvatarStreams([first, between, last]) as streams:
            for answer in streams.render("anna", faces, every_frame=True, same_person=True):
                answers.append(answer)
                if len(answers) == 20:
                    lost.process.kill()
    assert [answer.frame_index for answer in answers] == list(range(60))
    assert_own(answers)


def test_a_stream_that_looks_for_a_node_ends_when_the_client_is_closed(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking = threading.Event()

    def long_pause_s(*_: object) -> float:
        looking.set()
        return 5.0

    monkeypatch.setattr(Patience, "pause_s", long_pause_s)
    faces = (DriverFace(face(index, 0.4)) for index in range(60))

    def drive() -> None:
        for answer in streams.render("anna", faces, every_frame=True):
            if answer.frame_index == 10:
                lost.process.kill()

    with rendering(data) as lost, rendering(data) as left, ThreadPoolExecutor() as pool:
        addresses = [node.wait_until_serving().address for node in (lost, left)]
        with AvatarStreams(addresses) as streams:
            driving = pool.submit(drive)
            assert looking.wait(60)
        with pytest.raises(ClientError, match="closed"):
            driving.result()
        with pytest.raises(ClientError, match="closed"):
            next(streams.render("anna", [DriverFace(face(0))]))
        assert measured(left)["frames_total"] == 0


def test_pictures_come_as_a_caller_with_faces_asks(data: Path) -> None:
    with rendering(data) as node:
        node.wait_until_serving()
        blue = np.full((16, 16, 3), (0, 0, 255), np.uint8)
        left = PictureOptions(32, crop=(0.0, 0.0, 0.5), background=blue)  # of the person, nothing
        with AvatarStreams(node.address) as streams:
            (seen,) = streams.render("anna", [DriverFace(face(0))], picture=left)
            assert seen.image is not None
            assert seen.image.shape == (32, 32, 3)
            assert (seen.image == (0, 0, 255)).all()
            png = PictureOptions(image_format="png", background="transparent")
            (stored,) = streams.render("anna", [DriverFace(face(0))], picture=png)
            assert stored.image is None
            assert stored.data.startswith(b"\x89PNG")
            video = PictureOptions(32, "h264", bits_per_second=100_000, frames_per_second=15)
            faces = (DriverFace(face(index)) for index in range(3))
            units = list(streams.render("anna", faces, every_frame=True, picture=video))
            assert [unit.key_frame for unit in units] == [True, False, False]
        assert node.stop() == 0


def test_a_face_that_a_caller_does_not_find_is_held(data: Path) -> None:
    sent = [DriverFace(face(0, 0.4)), MissingFace(1, 0.04), DriverFace(face(2, 0.4))]
    with rendering(data) as node:
        node.wait_until_serving()
        with AvatarStreams(node.address) as streams:
            shown = list(streams.render("anna", sent, every_frame=True, same_person=True))
    assert [answer.held for answer in shown] == [False, True, False]
    assert [answer.frame_index for answer in shown] == [0, 1, 2]
    assert shown[1].capture_time_s == pytest.approx(0.04)
    assert_own(shown)


def test_nobody_at_any_address_is_said_at_once() -> None:
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    with AvatarStreams(addresses) as streams, pytest.raises(ClientError, match="styleavatar serve"):
        list(streams.drive("anna", endless()))


def test_no_frame_is_read_for_a_stream_that_cannot_connect(tmp_path: Path) -> None:
    frames = endless()
    credentials = Credentials(tls_ca=tmp_path / "nowhere.pem")
    with (
        AvatarStreams(credentials=credentials) as streams,
        pytest.raises(FileNotFoundError, match=r"nowhere\.pem"),
    ):
        list(streams.drive("anna", frames))
    assert next(frames).frame_index == 0
