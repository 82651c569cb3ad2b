# SPDX-License-Identifier: Apache-2.0
"""The rendering service over real sockets, with a real worker process and marked pictures."""

from __future__ import annotations

import asyncio
import math
import queue
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from styleavatar.v1 import image_pb2, rendering_service_pb2, rendering_service_pb2_grpc

from benchmarks.streaming_parts.overload import measure_overload
from tests.fakes.bundle import wide_statistics, write_fake_bundle
from tests.fakes.renderer import MEMORY_BYTES, read_mark
from tests.integration.live_stream import drive
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

ANNA, BEN = 10, 20
STAGES = ("queue", "conditioning", "network", "encoding", "total")
Stub = rendering_service_pb2_grpc.RenderingServiceStub


@pytest.fixture(scope="module")
def avatars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "avatars"
    write_fake_bundle(folder / "anna", ANNA)
    write_fake_bundle(folder / "ben", BEN)
    write_fake_bundle(folder / "slow", 30, {"render_s": 0.05})
    write_fake_bundle(folder / "paired", 70, {"render_s": 0.01, "batch_limit": 4})
    write_fake_bundle(folder / "failing", 40, {"fail_at": 3})
    write_fake_bundle(folder / "greedy", 40, {"memory_fails_at": 3})
    write_fake_bundle(folder / "deadly", 50, {"die_at": 2})
    write_fake_bundle(folder / "damaged", 60, {"refuse_to_load": True})
    return folder


@pytest.fixture(scope="module")
def service(avatars: Path) -> Iterator[ServiceProcess]:
    renderer = "tests.fakes.renderer:FakeRenderer"
    room = {"engine_bytes_per_worker": 2 * MEMORY_BYTES, "stream_limit": 4, "stand_by": False}
    with ServiceProcess("rendering", avatars.parent, renderer=renderer, **room) as process:
        yield process.wait_until_serving()
        assert process.stop() == 0
        assert "Traceback" not in process.log


@pytest.fixture
def stub(service: ServiceProcess) -> Stub:
    return Stub(service.channel)


def answers(stub: Stub, avatar_id: str, count: int, **config: object) -> list:
    requests = render_requests(render_config(avatar_id, **config), map(face, range(count)))
    return list(stub.StreamFrames(requests, timeout=60))


def refusal(call: Iterator) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    return caught.value


def reason(error: grpc.RpcError) -> str:
    return dict(error.trailing_metadata())["styleavatar-reason"]


def measured(service: ServiceProcess) -> dict[str, float]:
    """The metrics of the service, by name without their common prefix."""
    text = httpx.get(f"http://127.0.0.1:{service.metrics_port}/metrics").text
    values = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name.removeprefix("styleavatar_rendering_"): float(value) for name, value in values}


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


def test_an_unknown_avatar_is_not_found(stub: Stub) -> None:
    error = refusal(stub.StreamFrames(render_requests(render_config("nobody"), [])))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "nobody" in error.details()
    assert reason(error) == "AVATAR_NOT_FOUND"
    for name in ("../anna", "", "ANNA", "a" * 1000):
        error = refusal(stub.StreamFrames(render_requests(render_config(name), [])))
        assert error.code() is grpc.StatusCode.NOT_FOUND


def test_data_before_the_config_is_refused(stub: Stub) -> None:
    message = rendering_service_pb2.StreamFramesRequest(parameters=face(0))
    error = refusal(stub.StreamFrames(iter([message])))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "config" in error.details()


@pytest.mark.parametrize(
    ("field", "value"),
    [("scale", float("nan")), ("scale", -1.0), ("scale", float("inf")), ("expression", [0.5] * 3)],
)
def test_unusable_parameters_are_refused(stub: Stub, field: str, value: object) -> None:
    bad = face(1)
    bad.ClearField(field)
    bad.MergeFrom(type(bad)(**{field: value}))
    error = refusal(stub.StreamFrames(render_requests(render_config("anna"), [face(0), bad])))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert len(answers(stub, "anna", 3)) == 4


@pytest.mark.parametrize("change", [{"jpeg_quality": 101}, {"image_size_px": 5000}, {"driver": 9}])
def test_a_config_out_of_range_is_refused(stub: Stub, change: dict[str, int]) -> None:
    error = refusal(stub.StreamFrames(render_requests(render_config("anna", **change), [])))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("avatar_id", "message"),
    [
        ("failing", "This frame fails on purpose."),
        ("greedy", "There is not enough memory for this now; try again later."),
    ],
)
def test_a_failing_frame_does_not_end_the_stream(stub: Stub, avatar_id: str, message: str) -> None:
    responses = answers(stub, avatar_id, 6)[1:]
    kinds = [response.WhichOneof("response") for response in responses]
    assert kinds == ["frame"] * 3 + ["failure"] + ["frame"] * 2
    assert responses[3].failure.frame_index == 3
    assert responses[3].failure.message == message


def test_an_unloadable_bundle_is_said_and_harms_nobody(stub: Stub, service: ServiceProcess) -> None:
    error = refusal(stub.StreamFrames(render_requests(render_config("damaged"), [])))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "damaged on purpose" in error.details()
    assert len(answers(stub, "anna", 2)) == 3
    assert measured(service)["failed_avatar_loads_total"] > 0


def test_the_time_to_a_first_frame_begins_with_the_config(
    stub: Stub, service: ServiceProcess
) -> None:
    assert len(answers(stub, "anna", 1)) == 2  # it is loaded now
    before = measured(service)["first_frame_duration_seconds_sum"]

    def requests() -> Iterator[rendering_service_pb2.StreamFramesRequest]:
        time.sleep(3)
        yield from render_requests(render_config("anna"), [face(0)])

    assert len(list(stub.StreamFrames(requests(), timeout=60))) == 2
    assert measured(service)["first_frame_duration_seconds_sum"] - before < 3


def test_more_avatars_than_fit_are_served_in_turn(stub: Stub) -> None:
    for avatar_id, mark in (("anna", ANNA), ("ben", BEN), ("slow", 30), ("anna", ANNA)):
        request = rendering_service_pb2.RenderFrameRequest(
            config=render_config(avatar_id), parameters=face(1)
        )
        frame = stub.RenderFrame(request, timeout=30).frame
        assert frame.synthetic
        assert read_mark(pixels(frame))[0] == mark
    listed = stub.ListAvatars(rendering_service_pb2.ListAvatarsRequest()).avatars
    loaded = [avatar.avatar_id for avatar in listed if avatar.loaded]
    assert loaded == ["anna", "slow"]


def test_new_replaced_and_deleted_bundles_are_noticed(stub: Stub, avatars: Path) -> None:
    write_fake_bundle(avatars / "carla", 70)
    assert read_mark(pixels(answers(stub, "carla", 1)[1].frame))[0] == 70
    write_fake_bundle(avatars / "carla", 71)
    assert read_mark(pixels(answers(stub, "carla", 1)[1].frame))[0] == 71

    asked: queue.Queue = queue.Queue()
    asked.put(rendering_service_pb2.StreamFramesRequest(config=render_config("carla")))
    running = stub.StreamFrames(iter(asked.get, None), timeout=30)
    next(running)
    shutil.rmtree(avatars / "carla")
    assert (
        refusal(stub.StreamFrames(render_requests(render_config("carla"), []))).code()
        is grpc.StatusCode.NOT_FOUND
    )

    def next_is_refused(index: int) -> bool:
        asked.put(rendering_service_pb2.StreamFramesRequest(parameters=face(index)))
        return next(running, None) is None

    with pytest.raises(grpc.RpcError) as caught:  # once the stream has looked at the store
        any(map(next_is_refused, range(100_000)))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_streams_over_the_limit_are_refused_at_once(stub: Stub, service: ServiceProcess) -> None:
    held: list[queue.Queue] = [queue.Queue() for _ in range(4)]
    calls = []
    for asked in held:
        asked.put(rendering_service_pb2.StreamFramesRequest(config=render_config("anna")))
        calls.append(stub.StreamFrames(iter(asked.get, None), timeout=30))
        next(calls[-1])
    error = refusal(stub.StreamFrames(render_requests(render_config("anna"), []), timeout=10))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert float(dict(error.trailing_metadata())["styleavatar-retry-delay-s"]) > 0
    # A caller who writes nothing, and one through asyncio, hear the same.
    silent: queue.Queue = queue.Queue()
    assert refusal(stub.StreamFrames(iter(silent.get, None))).code() is error.code()
    silent.put(None)
    driven = asyncio.run(drive(service.address, "anna", lambda driven: True))
    assert (driven.code, driven.reason) == (error.code(), "OVERLOADED")
    text = httpx.get(f"http://127.0.0.1:{service.metrics_port}/metrics").text
    assert 'styleavatar_rendering_refused_streams_total{reason="limit"} 3.0' in text
    for asked, call in zip(held, calls, strict=True):
        asked.put(None)
        assert list(call) == []


def test_overload_is_measured_on_all_who_are_served_and_all_who_are_not(
    service: ServiceProcess,
) -> None:
    figures = measure_overload(service.address, "anna", seconds=2, frames_per_second=10, most=6)
    assert figures["overload.admitted_streams"] == 4  # the limit
    assert figures["overload.refusals"] >= 8
    assert 0 < figures["overload.refusal_ms_p50"] <= figures["overload.refusal_ms_max"]
    gaps = ("interframe_ms_p99_ratio", "alone_again_ms_p99_ratio")
    assert all(0 < figures[f"overload.{name}"] < math.inf for name in gaps)


def test_a_killed_worker_is_replaced_and_its_stream_goes_on(
    stub: Stub, service: ServiceProcess
) -> None:
    asked: queue.Queue = queue.Queue()
    asked.put(rendering_service_pb2.StreamFramesRequest(config=render_config("anna")))
    stream = stub.StreamFrames(iter(asked.get, None), timeout=60)
    next(stream)
    for index in range(12):
        if index in (4, 8):
            (worker,) = service.workers()
            worker.send_signal(signal.SIGKILL)
        asked.put(rendering_service_pb2.StreamFramesRequest(parameters=face(index)))
        assert read_mark(pixels(next(stream).frame)) == (ANNA, index, 50)
    asked.put(None)
    assert list(stream) == []


def test_a_frame_that_kills_workers_is_given_up(stub: Stub) -> None:
    call = stub.StreamFrames(
        render_requests(render_config("deadly"), map(face, range(5))), timeout=60
    )
    collected = []
    with pytest.raises(grpc.RpcError) as caught:
        collected.extend(iter(call.__next__, None))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert len(answers(stub, "ben", 3)) == 4


def test_reflection_names_the_service(service: ServiceProcess) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(service.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([request]))
    names = {entry.name for entry in answer.list_services_response.service}
    assert {"styleavatar.v1.RenderingService", "grpc.health.v1.Health"} <= names


# What has happened once the test below is over; with labels, of which there are few.
COUNTED = (
    *(f'frame_duration_seconds_count{{stage="{stage}"}}' for stage in STAGES),
    "first_frame_duration_seconds_count",
    "frame_interval_seconds_count",
    "frames_total",
    'dropped_frames_total{reason="superseded"}',
    "batch_size_count",
    "avatar_load_duration_seconds_count",
    'avatar_uses_total{cache="hit"}',
    'avatar_uses_total{cache="miss"}',
    "evicted_avatars_total",
    "loaded_avatars",
    "engine_bytes",
    "worker_memory_bytes",
    "worker_restarts_total",
)
AT_REST = ("streams", "queued_frames", "standby_workers", "utilization", "moved_streams_total")


def test_metrics_say_what_has_happened(stub: Stub, service: ServiceProcess) -> None:
    for avatar_id in ("anna", "anna", "ben", "slow"):  # two fit
        answers(stub, avatar_id, 5)
    answers(stub, "slow", 30, frame_mode=LATEST)
    service.workers()[0].send_signal(signal.SIGKILL)
    answers(stub, "anna", 2)
    named = measured(service)
    assert [name for name in COUNTED if not named.get(name, 0) > 0] == []
    assert {name: named.get(name) for name in AT_REST} == dict.fromkeys(AT_REST, 0)
    # A rate of 30 per second is seen in detail.
    edges = [float(name.split('"')[1]) for name in named if "frame_interval_seconds_bucket" in name]
    in_ms = (1, 2, 4, 6, 8, 10, 12.5, 16, 20, 25, 33, 40, 50, 66, 100, 250, math.inf)
    assert [1000 * edge for edge in edges] == pytest.approx(in_ms)


def test_the_front_process_never_loads_torch(service: ServiceProcess) -> None:
    mapped = Path(f"/proc/{service.process.pid}/maps").read_text()
    assert "libpython" in mapped or "python" in mapped
    assert "libavcodec" in mapped  # from the start: no stream waits for it to be loaded
    assert "torch" not in mapped


def test_live_and_every_frame_are_echoed(stub: Stub) -> None:
    assert answers(stub, "anna", 0, frame_mode=0)[0].config.frame_mode == LATEST
    assert answers(stub, "anna", 0, frame_mode=EVERY)[0].config.frame_mode == EVERY


def test_pictures_differ_between_frames(stub: Stub) -> None:
    _, first, second = answers(stub, "anna", 2)
    assert not np.array_equal(pixels(first.frame), pixels(second.frame))
