# SPDX-License-Identifier: Apache-2.0
"""What the rendering service refuses, and that it harms nobody else."""

from __future__ import annotations

import asyncio
import math
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from styleavatar.v1 import rendering_service_pb2

from benchmarks.streaming_parts import overload
from benchmarks.streaming_parts.callers import LiveResult, Stream, run_streams
from benchmarks.streaming_parts.overload import measure_overload
from tests.integration.live_stream import drive
from tests.integration.marked_rendering import (
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
    EVERY,
    LATEST,
    face,
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


@pytest.mark.parametrize("mode", [EVERY, LATEST])
@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("scale", float("nan"), "BAD_PARAMETERS"),
        ("scale", -1.0, "BAD_PARAMETERS"),
        ("scale", float("inf"), "BAD_PARAMETERS"),
        ("capture_offset", {"seconds": 2**62}, "BAD_PARAMETERS"),
        ("expression", [0.5] * 3, "INVALID_INPUT"),
        ("model_id", "another", "INVALID_INPUT"),
    ],
)
def test_a_face_that_cannot_be_used_fails_and_the_stream_goes_on(
    stub: Stub, field: str, value: object, told: str, mode: int
) -> None:
    bad = face(1)
    bad.ClearField(field)
    bad.MergeFrom(type(bad)(**{field: value}))
    asked: queue.Queue = queue.Queue()
    call = stub.StreamFrames(iter(asked.get, None), timeout=60)
    config = render_config("anna", frame_mode=mode)
    asked.put(rendering_service_pb2.StreamFramesRequest(config=config))
    next(call)
    heard = []
    for parameters in (face(0), bad, face(2)):
        asked.put(rendering_service_pb2.StreamFramesRequest(parameters=parameters))
        heard.append(next(call))
    asked.put(None)
    assert list(call) == []
    assert [r.WhichOneof("response") for r in heard] == ["frame", "failure", "frame"]
    assert (heard[1].failure.frame_index, heard[1].failure.reason) == (1, told)


def test_a_single_frame_that_cannot_be_used_is_refused(stub: Stub) -> None:
    for changes in ({"scale": -1.0}, {"model_id": "another"}):
        bad = face(1)
        bad.MergeFrom(type(bad)(**changes))
        request = rendering_service_pb2.RenderFrameRequest(
            config=render_config("anna"), parameters=bad
        )
        with pytest.raises(grpc.RpcError) as caught:
            stub.RenderFrame(request, timeout=60)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


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
    assert figures["overload.admitted_then_refused"] == 0
    assert figures["overload.refusals"] >= 8
    assert 0 < figures["overload.refusal_ms_p50"] <= figures["overload.refusal_ms_max"]
    gaps = ("interframe_ms_p99_ratio", "alone_again_ms_p99_ratio")
    assert all(0 < figures[f"overload.{name}"] < math.inf for name in gaps)


def test_overload_has_no_gaps_where_one_who_was_admitted_is_refused(
    service: ServiceProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Stream] = []

    def run_then_take_a_place(*arguments: Any) -> list[LiveResult]:
        results = run_streams(*arguments)
        if not held:
            held.append(Stream(service.channel, "anna"))
        return results

    monkeypatch.setattr(overload, "run_streams", run_then_take_a_place)
    figures = measure_overload(service.address, "anna", seconds=1, frames_per_second=10, most=6)
    held[0].close()
    assert figures["overload.admitted_streams"] == 4
    assert figures["overload.admitted_then_refused"] >= 3  # alone, among others, alone again
    assert not [name for name in figures if "interframe" in name]
