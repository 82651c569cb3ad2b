# SPDX-License-Identifier: Apache-2.0
"""Callers that vanish, freeze, fall silent, do not read, or say what nobody can read."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import psutil
import pytest
from hypothesis import given, settings
from styleavatar.v1 import image_pb2, rendering_service_pb2

from tests.integration.bad_streams import bad_faces, bad_streams, encoded
from tests.integration.faulty_rendering import (
    Request,
    Stub,
    eventually,
    open_streams,
    serving,
    start,
    write_avatars,
)
from tests.integration.live_stream import Driven, drive
from tests.integration.service_process import ServiceProcess
from tests.integration.stream_helpers import EVERY, LATEST, RAW, face, render_config


@pytest.fixture(scope="module")
def avatars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_avatars(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def service(avatars: Path) -> Iterator[ServiceProcess]:
    with serving(avatars) as process:
        yield process


@contextmanager
def streaming_caller(service: ServiceProcess) -> Iterator[subprocess.Popen[str]]:
    """Runs a process that streams, and is killed in the end."""
    program = (
        "import asyncio, sys\n"
        "from tests.integration.live_stream import drive\n"
        "def until(driven):\n"
        "    if len(driven.frames) >= 3: print('streaming', flush=True)\n"
        "    return False\n"
        "while True:  # comes back when it is sent away\n"
        "    driven = asyncio.run(drive(sys.argv[1], 'anna', until, interval_s=0.01))\n"
        "    print(driven.code, driven.reason, file=sys.stderr, flush=True)\n"
    )
    assert eventually(lambda: open_streams(service) == 0)
    command = [sys.executable, "-c", program, service.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as caller:
        try:
            assert caller.stdout is not None
            assert caller.stdout.readline() == "streaming\n"
            assert open_streams(service) == 1
            yield caller
        finally:
            caller.kill()


def test_a_caller_that_vanishes_frees_its_stream(service: ServiceProcess) -> None:
    with streaming_caller(service) as caller:
        caller.kill()
    assert eventually(lambda: open_streams(service) == 0)


def test_a_caller_that_freezes_frees_its_stream(
    avatars: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STYLEAVATAR_KEEPALIVE_S", "3")
    with start(avatars, worker_count=1, stand_by=False) as service:
        # Its kernel still takes what comes; only the pings are not answered any more.
        with streaming_caller(service) as caller:
            caller.send_signal(signal.SIGSTOP)
            assert eventually(lambda: open_streams(service) == 0)
        assert service.stop() == 0


def test_a_caller_that_falls_silent_is_let_go(avatars: Path) -> None:
    with start(avatars, worker_count=1, idle_timeout_s=0.5) as service:
        silent = drive(service.address, "anna", lambda driven: False, interval_s=60)
        driven = asyncio.run(silent)
        assert (driven.code, driven.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "IDLE_TIMEOUT")
        assert driven.indices == [0]
        # One who does not even say what he wants must not hold a stream for good.
        waiting = threading.Event()
        mute = Stub(service.channel).StreamFrames(iter(lambda: waiting.wait(60), True), timeout=60)
        with pytest.raises(grpc.RpcError) as caught:
            next(mute)
        waiting.set()
        assert caught.value.code() is driven.code
        assert "config" in caught.value.details()
        assert eventually(lambda: open_streams(service) == 0)
        assert service.stop() == 0


async def last_of(call: grpc.aio.StreamStreamCall) -> None:
    """Reads what lies ready, up to how the stream ended."""
    while await call.read() is not grpc.aio.EOF:
        pass


def test_a_caller_that_sends_but_does_not_read_is_let_go(avatars: Path) -> None:
    async def scenario(service: ServiceProcess) -> grpc.aio.AioRpcError:
        async with grpc.aio.insecure_channel(service.address) as channel:
            call = Stub(channel).StreamFrames(timeout=60)
            config = render_config("anna", frame_mode=LATEST, image_size_px=512)
            await call.write(Request(config=config))
            await call.read()
            assert open_streams(service) == 1
            for index in range(200):
                await call.write(Request(parameters=face(index)))
                await asyncio.sleep(0.05)
                if open_streams(service) == 0:
                    break
            assert open_streams(service) == 0
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await last_of(call)
            return caught.value

    with start(avatars, worker_count=1, idle_timeout_s=1.0, stand_by=False) as service:
        error = asyncio.run(scenario(service))
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert error.details() == "The stream was ended: no answer was read for 1 s."
        assert dict(error.trailing_metadata()) == {"styleavatar-reason": "IDLE_TIMEOUT"}
        assert service.stop() == 0


def test_a_caller_that_does_not_read_costs_no_memory(service: ServiceProcess) -> None:
    front = psutil.Process(service.process.pid)

    async def scenario() -> tuple[int, Driven]:
        grown = 0
        async with grpc.aio.insecure_channel(service.address) as channel:
            call = Stub(channel).StreamFrames(timeout=60)
            config = render_config("anna", frame_mode=LATEST, image_size_px=512)
            await call.write(Request(config=config))
            await call.read()
            before = front.memory_info().rss
            for index in range(200):  # 157 MB of pictures
                await call.write(Request(parameters=face(index)))
                grown = max(grown, front.memory_info().rss - before)
                await asyncio.sleep(0.005)
            await call.done_writing()
            driven = Driven()
            while (response := await call.read()) is not grpc.aio.EOF:
                driven.frames.append(response.frame)
                driven.dropped += response.frame.dropped.slow_reader_count
            return grown, driven

    grown, driven = asyncio.run(scenario())
    assert grown < 80e6
    assert driven.indices[-1] == 199
    assert driven.dropped > 20


Response = rendering_service_pb2.StreamFramesResponse
REFUSALS = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}


def test_malformed_messages_are_refused_and_no_worker_is_lost(service: ServiceProcess) -> None:
    call = service.channel.stream_stream("/styleavatar.v1.RenderingService/StreamFrames")
    workers = {worker.pid for worker in service.workers()}

    @settings(max_examples=80, deadline=None)
    @given(bad_streams)
    def refuse(stream: list) -> None:
        messages = list(encoded(stream))
        if len(messages) == 2 and isinstance(stream[1], tuple):
            messages = messages[1:]  # the config itself is bad
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter(messages), timeout=20))
        assert caught.value.code() in REFUSALS, (caught.value.code(), caught.value.details())

    @settings(max_examples=40, deadline=None)
    @given(bad_faces)
    def fail(stream: list) -> None:
        _, answer = map(Response.FromString, call(iter(list(encoded(stream))), timeout=20))
        assert answer.failure.reason in ("BAD_PARAMETERS", "INVALID_INPUT")

    refuse()
    fail()
    with pytest.raises(grpc.RpcError) as caught:
        list(call(iter([bytes(34_000_000)]), timeout=20))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert workers <= {worker.pid for worker in service.workers()}
    good = asyncio.run(drive(service.address, "anna", lambda driven: driven.sent == 5))
    assert good.indices == list(range(5))


def test_unreadable_bytes_in_mid_stream_are_refused(service: ServiceProcess) -> None:
    call = service.channel.stream_stream("/styleavatar.v1.RenderingService/StreamFrames")
    start = Request(config=render_config("anna")).SerializeToString()
    with pytest.raises(grpc.RpcError) as caught:
        list(call(iter([start, b"\xff\xff"]), timeout=20))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    metadata = dict(caught.value.trailing_metadata())
    assert metadata["styleavatar-reason"] == "UNREADABLE_MESSAGE"


@pytest.mark.parametrize(
    ("fields", "start_bytes"),
    [
        ({"image_format": image_pb2.IMAGE_FORMAT_H264}, b"\x00\x00\x00\x01"),
        ({"image_format": image_pb2.IMAGE_FORMAT_PNG, "background": 2}, b"\x89PNG"),
        ({"image_format": RAW, "background": 3, "frame_mode": EVERY}, bytes((0, 177, 64))),
    ],
)
def test_outputs_come_as_granted(
    service: ServiceProcess, fields: dict[str, int], start_bytes: bytes
) -> None:
    driven = asyncio.run(drive(service.address, "anna", lambda driven: driven.sent == 3, **fields))
    assert driven.indices == [0, 1, 2]
    assert driven.frames[0].image.data.startswith(start_bytes)
    is_video = fields["image_format"] == image_pb2.IMAGE_FORMAT_H264
    assert [frame.key_frame for frame in driven.frames] == [is_video, False, False]
