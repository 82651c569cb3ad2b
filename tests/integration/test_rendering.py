# SPDX-License-Identifier: Apache-2.0
"""The rendering service over real sockets: each frame is answered as it was asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from styleavatar.v1 import image_pb2, rendering_service_pb2

from tests.fakes.bundle import wide_statistics
from tests.fakes.renderer import read_mark
from tests.integration.marked_rendering import (
    ANNA,
    BEN,
    Stub,
    answers,
    measured,
    serving,
    write_avatars,
)
from tests.integration.service_process import ServiceProcess
from tests.integration.stream_helpers import (
    EVERY,
    LATEST,
    RAW,
    face,
    pixels,
    render_config,
    render_requests,
)


@pytest.fixture(scope="module")
def avatars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_avatars(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def service(avatars: Path) -> Iterator[ServiceProcess]:
    with serving(avatars) as process:
        yield process


@pytest.fixture
def stub(service: ServiceProcess) -> Stub:
    return Stub(service.channel)


def test_every_frame_is_answered_once_in_order(stub: Stub) -> None:
    config, *frames = answers(stub, "anna", 40)
    granted = render_config("anna", jpeg_quality=90, image_size_px=64, frames_per_second=30)
    granted.background = rendering_service_pb2.BACKGROUND_ORIGINAL
    granted.crop.side = 1
    granted.frame_deadline.seconds = 1
    granted.gains.MergeFrom(rendering_service_pb2.DriverGains(gaze=1, blink=1, mouth=1, head=1))
    assert config.config == granted
    assert [response.frame.frame_index for response in frames] == list(range(40))
    for index, response in enumerate(frames):
        assert read_mark(pixels(response.frame)) == (ANNA, index, 50)
        assert response.frame.synthetic
        assert not response.frame.clamped
    assert frames[-1].frame.stage_durations.total.ToNanoseconds() > 0


def test_formats_and_sizes_are_as_granted(stub: Stub) -> None:
    for image_format, start in (
        (image_pb2.IMAGE_FORMAT_JPEG, b"\xff\xd8"),
        (image_pb2.IMAGE_FORMAT_PNG, b"\x89PNG"),
    ):
        _, response = answers(stub, "anna", 1, image_format=image_format, image_size_px=48)
        image = response.frame.image
        assert image.data.startswith(start)
        assert (image.format, image.width_px, image.height_px) == (image_format, 48, 48)


@pytest.mark.parametrize(
    ("left", "colors"),
    [(0.0, {(10, 200, 30)}), (0.5, {(ANNA, 0, 50)}), (0.25, {(10, 200, 30), (ANNA, 0, 50)})],
)
def test_a_part_is_answered_before_the_callers_own_background(
    stub: Stub, left: float, colors: set[tuple[int, int, int]]
) -> None:
    behind = image_pb2.Image(
        format=RAW, width_px=16, height_px=16, data=bytes((10, 200, 30)) * (16 * 16)
    )
    config, response = answers(  # the person is in the right half
        stub,
        "anna",
        1,
        crop=rendering_service_pb2.Region(left=left, top=0.25, side=0.5),
        image_size_px=32,
        background=rendering_service_pb2.BACKGROUND_IMAGE,
        background_image=behind,
    )
    assert config.config.crop.left == left
    assert config.config.background_image.data == b""
    seen = pixels(response.frame)
    assert seen.shape == (32, 32, 3)
    assert {tuple(pixel) for pixel in seen.reshape(-1, 3).tolist()} == colors


def test_two_clients_get_their_own_avatars(stub: Stub) -> None:
    collected: dict[str, list] = {}

    def collect(avatar_id: str) -> None:
        collected[avatar_id] = answers(stub, avatar_id, 60)[1:]

    threads = [threading.Thread(target=collect, args=(name,)) for name in ("anna", "ben")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for avatar_id, mark in (("anna", ANNA), ("ben", BEN)):
        marks = [read_mark(pixels(response.frame)) for response in collected[avatar_id]]
        assert marks == [(mark, index, 50) for index in range(60)]


def test_streams_of_an_avatar_share_batches_and_keep_their_own_frames(
    stub: Stub, service: ServiceProcess
) -> None:
    def collect(value: float) -> list[tuple[int, int, int]]:
        faces = (face(index, value) for index in range(60))
        config = render_config("paired", frames_per_second=10)  # there is room for all
        responses = stub.StreamFrames(render_requests(config, faces), timeout=60)
        return [read_mark(pixels(response.frame)) for response in list(responses)[1:]]

    values = (0.25, 0.75, 1.0)
    with ThreadPoolExecutor() as threads:
        for value, marks in zip(values, threads.map(collect, values), strict=True):
            assert marks == [(70, index, round(100 * value)) for index in range(60)]
    counts = measured(service)
    assert counts['batch_size_bucket{le="4.0"}'] == counts["batch_size_count"]
    assert counts['batch_size_bucket{le="1.0"}'] < counts["batch_size_count"] - 60


def test_live_streams_drop_old_frames_and_say_so(stub: Stub) -> None:
    frames = [response.frame for response in answers(stub, "slow", 30, frame_mode=LATEST)[1:]]
    assert len(frames) < 30
    assert frames[-1].frame_index == 29
    indices = [frame.frame_index for frame in frames]
    assert indices == sorted(set(indices))
    dropped = sum(count for frame in frames for _, count in frame.dropped.ListFields())
    assert len(frames) + dropped == 30  # on a busy machine some because of a slow reader


def test_a_held_frame_shows_the_last_face(stub: Stub) -> None:
    def requests() -> Iterator[rendering_service_pb2.StreamFramesRequest]:
        yield from render_requests(render_config("anna"), [face(7, 0.25)])
        hold = rendering_service_pb2.HoldFrame(frame_index=8)
        yield rendering_service_pb2.StreamFramesRequest(hold=hold)

    first, second = (response.frame for response in list(stub.StreamFrames(requests()))[1:])
    assert not first.held
    assert second.held
    assert read_mark(pixels(second)) == (ANNA, 8, 25)


def test_set_neutral_moves_the_expression(stub: Stub) -> None:
    other = rendering_service_pb2.DRIVER_OTHER_PERSON

    def requests() -> Iterator[rendering_service_pb2.StreamFramesRequest]:
        yield from render_requests(render_config("anna", driver=other), [face(0, 0.6)])
        neutral = rendering_service_pb2.SetNeutral()
        yield rendering_service_pb2.StreamFramesRequest(set_neutral=neutral)
        yield rendering_service_pb2.StreamFramesRequest(parameters=face(1, 0.6))

    frames = [response.frame for response in list(stub.StreamFrames(requests()))[1:]]
    before, after = (read_mark(pixels(frame))[2] for frame in frames)
    assert after == round(100 * float(wide_statistics().neutral_expression[0]))
    assert before != after


def test_reflection_names_the_service(service: ServiceProcess) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(service.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([request]))
    names = {entry.name for entry in answer.list_services_response.service}
    assert {"styleavatar.v1.RenderingService", "grpc.health.v1.Health"} <= names


def test_the_front_process_never_loads_torch(service: ServiceProcess) -> None:
    mapped = Path(f"/proc/{service.process.pid}/maps").read_text()
    assert "libpython" in mapped or "python" in mapped
    assert "libavcodec" in mapped  # from the start: no stream waits for it to be loaded
    assert "torch" not in mapped


def test_live_and_every_frame_are_echoed(stub: Stub) -> None:
    assert answers(stub, "anna", 0, frame_mode=0)[0].config.frame_mode == LATEST
    assert answers(stub, "anna", 0, frame_mode=EVERY)[0].config.frame_mode == EVERY
