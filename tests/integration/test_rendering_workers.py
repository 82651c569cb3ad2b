# SPDX-License-Identifier: Apache-2.0
"""What the worker of the rendering service holds, when it is replaced, and what is measured."""

from __future__ import annotations

import math
import queue
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from styleavatar.v1 import rendering_service_pb2

from tests.fakes.bundle import write_fake_bundle
from tests.fakes.renderer import AT_GATE_NAME, CLOSED_NAME, GATE_NAME, read_mark
from tests.integration.faulty_rendering import eventually
from tests.integration.marked_rendering import (
    ANNA,
    BEN,
    STAGES,
    Stub,
    answers,
    measured,
    reason,
    refusal,
    serving,
    write_avatars,
)
from tests.integration.service_process import ServiceProcess
from tests.integration.stream_helpers import (
    LATEST,
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


def test_the_time_to_a_first_frame_begins_with_the_config(
    stub: Stub, service: ServiceProcess
) -> None:
    assert len(answers(stub, "anna", 1)) == 2  # it is loaded now
    asked: queue.Queue = queue.Queue()
    stream = stub.StreamFrames(iter(asked.get, None), timeout=60)
    assert eventually(lambda: measured(service)["streams"] == 1)
    assert len(answers(stub, "anna", 100)) == 101  # meanwhile another stream passes
    before_s = measured(service)["first_frame_duration_seconds_sum"]
    config_s = time.perf_counter()
    for request in render_requests(render_config("anna"), [face(0)]):
        asked.put(request)
    asked.put(None)
    assert len(list(stream)) == 2
    told_s = measured(service)["first_frame_duration_seconds_sum"] - before_s
    assert 0 < told_s < time.perf_counter() - config_s


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


def test_a_single_frame_says_why_it_could_not_be_rendered(stub: Stub, avatars: Path) -> None:
    write_fake_bundle(avatars / "faulty", 80, {"fail_at": 1, "memory_fails_at": 2, "refuse_at": 3})
    expected = {
        1: (grpc.StatusCode.INTERNAL, "RENDER_FAILED"),
        2: (grpc.StatusCode.RESOURCE_EXHAUSTED, "OUT_OF_MEMORY"),
        3: (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_INPUT"),
    }
    for index, (code, why) in expected.items():
        request = rendering_service_pb2.RenderFrameRequest(
            config=render_config("faulty"), parameters=face(index)
        )
        with pytest.raises(grpc.RpcError) as caught:
            stub.RenderFrame(request, timeout=30)
        assert (caught.value.code(), reason(caught.value)) == (code, why)
    shutil.rmtree(avatars / "faulty")


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


def test_a_stream_never_goes_on_with_the_bundle_that_replaced_its_own(
    stub: Stub, service: ServiceProcess, avatars: Path
) -> None:
    write_fake_bundle(avatars / "dora", 72)
    asked: queue.Queue = queue.Queue()
    asked.put(rendering_service_pb2.StreamFramesRequest(config=render_config("dora")))
    stream = stub.StreamFrames(iter(asked.get, None), timeout=60)
    next(stream)
    asked.put(rendering_service_pb2.StreamFramesRequest(parameters=face(0)))
    assert read_mark(pixels(next(stream).frame))[0] == 72
    write_fake_bundle(avatars / "dora", 73)
    asked.put(rendering_service_pb2.StreamFramesRequest(parameters=face(1)))
    assert read_mark(pixels(next(stream).frame))[0] == 72  # the worker holds it still
    (worker,) = service.workers()
    worker.send_signal(signal.SIGKILL)
    asked.put(rendering_service_pb2.StreamFramesRequest(parameters=face(2)))
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    asked.put(None)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason(caught.value) == "AVATAR_REPLACED"
    assert read_mark(pixels(answers(stub, "dora", 1)[1].frame))[0] == 73
    shutil.rmtree(avatars / "dora")


def loaded_witness(stub: Stub, avatars: Path) -> Path:
    """Has an avatar loaded by whose end ``wait_for_sweep`` sees a sweep; returns its bundle."""
    bundle = write_fake_bundle(avatars / "witness", 90, {"tell_closed": True})
    assert len(answers(stub, "witness", 1)) == 2
    return bundle


def wait_for_sweep(witness: Path) -> None:
    """Waits until the service has gone over all bundles that were replaced before this."""
    write_fake_bundle(witness, 91)
    assert eventually((witness / CLOSED_NAME).exists)  # those replaced first are let go first
    shutil.rmtree(witness)


def test_a_bundle_that_was_replaced_is_let_go_whether_anybody_asks_or_not(
    stub: Stub, avatars: Path
) -> None:
    write_fake_bundle(avatars / "ella", 74, {"tell_closed": True})
    asked: queue.Queue = queue.Queue()
    asked.put(rendering_service_pb2.StreamFramesRequest(config=render_config("ella")))
    stream = stub.StreamFrames(iter(asked.get, None), timeout=60)
    next(stream)
    write_fake_bundle(avatars / "ella", 75)
    wait_for_sweep(loaded_witness(stub, avatars))
    asked.put(rendering_service_pb2.StreamFramesRequest(parameters=face(0)))
    assert read_mark(pixels(next(stream).frame))[0] == 74  # a stream keeps it
    assert not (avatars / "ella" / CLOSED_NAME).exists()
    asked.put(None)
    assert list(stream) == []
    assert eventually((avatars / "ella" / CLOSED_NAME).exists)
    shutil.rmtree(avatars / "ella")


def test_a_bundle_that_is_replaced_while_it_is_loaded_is_let_go_too(
    stub: Stub, avatars: Path
) -> None:
    witness = loaded_witness(stub, avatars)
    write_fake_bundle(avatars / "fred", 76, {"load_gate": True, "tell_closed": True})
    asked: queue.Queue = queue.Queue()
    asked.put(rendering_service_pb2.StreamFramesRequest(config=render_config("fred")))
    stream = stub.StreamFrames(iter(asked.get, None), timeout=60)
    assert eventually((avatars / "fred" / AT_GATE_NAME).exists)  # the worker has read the bundle
    write_fake_bundle(avatars / "fred", 77)
    wait_for_sweep(witness)
    (avatars / "fred" / GATE_NAME).touch()
    next(stream)
    asked.put(rendering_service_pb2.StreamFramesRequest(parameters=face(0)))
    assert read_mark(pixels(next(stream).frame))[0] == 76
    asked.put(None)
    assert list(stream) == []
    assert eventually((avatars / "fred" / CLOSED_NAME).exists)
    shutil.rmtree(avatars / "fred")


def test_a_frame_that_kills_workers_is_given_up(stub: Stub) -> None:
    call = stub.StreamFrames(
        render_requests(render_config("deadly"), map(face, range(5))), timeout=60
    )
    collected = []
    with pytest.raises(grpc.RpcError) as caught:
        collected.extend(iter(call.__next__, None))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert len(answers(stub, "ben", 3)) == 4


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
