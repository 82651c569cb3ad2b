# SPDX-License-Identifier: Apache-2.0
"""What goes wrong around a stream that is under way: processes, callers, bundles, signals."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import psutil
import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given, settings
from styleavatar.v1 import image_pb2, rendering_service_pb2, rendering_service_pb2_grpc

from tests.fakes.bundle import write_fake_bundle
from tests.integration.bad_streams import bad_streams, encoded
from tests.integration.live_stream import Driven, drive, drive_to_the_end
from tests.integration.service_process import ServiceProcess
from tests.integration.stream_helpers import EVERY, LATEST, RAW, face, render_config

MARKS = {"anna": 10, "ben": 20, "carla": 30, "dora": 40}
Stub = rendering_service_pb2_grpc.RenderingServiceStub
Request = rendering_service_pb2.StreamFramesRequest


@pytest.fixture(scope="module")
def avatars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "avatars"
    for name, mark in MARKS.items():
        write_fake_bundle(folder / name, mark, {"render_s": 0.002, "batch_limit": 4})
    write_fake_bundle(folder / "broken-device", 50, {"device_fails_at": 5})
    write_fake_bundle(folder / "huge", 60, {"out_of_memory": True})
    write_fake_bundle(folder / "huge-engine", 60, {"engine_out_of_memory": True})
    write_fake_bundle(folder / "heavy", 70, {"render_s": 0.05})
    write_fake_bundle(folder / "corrupt", 80)
    weights = folder / "corrupt" / "generator.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    return folder


def start(avatars: Path, **changes: object) -> ServiceProcess:
    settings = {
        "renderer": "tests.fakes.renderer:FakeRenderer",
        "worker_count": 2,
        "stream_limit": 64,
        "utilization_limit": 5,
        "drain_timeout_s": 3,
        **changes,
    }
    service = ServiceProcess("rendering", avatars.parent, **settings)
    try:
        return service.wait_until_serving()
    except BaseException:
        service.stop(signal.SIGKILL)
        raise


def segments() -> set[str]:
    """Shared memory that has a name; semaphores are other programs'."""
    names = os.listdir("/dev/shm")  # noqa: PTH208 - names of the kernel's folder
    return {name for name in names if not name.startswith("sem.")}


@pytest.fixture(scope="module")
def service(avatars: Path) -> Iterator[ServiceProcess]:
    shared_memory = segments()
    with start(avatars) as process:
        yield process
        assert process.stop() == 0
    broken = [line for line in process.log.splitlines() if "Traceback" in line]
    assert broken == []
    assert segments() <= shared_memory


def metric(service: ServiceProcess, name: str) -> float:
    text = httpx.get(f"http://127.0.0.1:{service.metrics_port}/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return float(values[f"styleavatar_rendering_{name}"])


def open_streams(service: ServiceProcess) -> float:
    return metric(service, "streams")


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def signal_workers(service: ServiceProcess, number: int) -> None:
    for worker in service.workers():
        worker.send_signal(number)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_live_streams_outlive_workers_that_die_or_hang(
    service: ServiceProcess, number: signal.Signals
) -> None:
    # A third may stand by; one that hangs there is noticed when it is needed.
    serving = sorted(service.workers(), key=psutil.Process.create_time)[:2]

    async def scenario() -> list[Driven]:
        struck_at: dict[str, int] = {}

        def until(driven: Driven) -> bool:
            if len(driven.frames) >= 10 and "sent" not in struck_at:
                struck_at["sent"] = driven.sent
                signal_workers(service, number)
            # Ten more after the last one that can have been rendered before the blow.
            struck = struck_at.get("sent", 1 << 30)
            return sum(index > struck for index in driven.indices) >= 10

        streams = (
            drive(service.address, name, until, interval_s=0.005, window=0, frame_mode=LATEST)
            for name in ("anna", "ben")
        )
        return await asyncio.gather(*streams)

    for driven, name in zip(asyncio.run(scenario()), ("anna", "ben"), strict=True):
        assert driven.code is grpc.StatusCode.OK
        driven.assert_own(MARKS[name])
        # Good frames are back before as many were lost as come in ten seconds: it takes one to two.
        assert driven.dropped < 2000
        # Each frame is answered or counted as dropped, up to the last answer.
        assert len(driven.frames) + driven.dropped == driven.indices[-1] + 1
    assert not {worker.pid for worker in serving} & {worker.pid for worker in service.workers()}


def test_no_stream_gets_anothers_frames_even_when_workers_die(service: ServiceProcess) -> None:
    names = [name for name in MARKS for _ in range(8)]
    blow = threading.Event()

    def until(driven: Driven) -> bool:
        if len(driven.frames) >= 15 and not blow.is_set():
            blow.set()
            service.workers()[0].send_signal(signal.SIGKILL)
        return driven.sent == 30

    async def scenario() -> list[Driven]:
        return await asyncio.gather(*(drive(service.address, name, until) for name in names))

    for driven, name in zip(asyncio.run(scenario()), names, strict=True):
        assert driven.code is grpc.StatusCode.OK
        assert driven.indices == list(range(30))
        driven.assert_own(MARKS[name])
    assert blow.is_set()


def test_a_stream_moves_to_a_worker_that_lives_while_its_own_is_replaced(avatars: Path) -> None:
    names = ("anna", "ben")
    with start(avatars, stand_by=False, warm_avatars=len(list(avatars.iterdir()))) as service:
        seen: dict[str, Driven] = {}
        struck_at: dict[str, int] = {}

        def until(name: str, driven: Driven) -> bool:
            seen[name] = driven
            streaming = [other for other in seen.values() if len(other.frames) >= 10]
            if not struck_at and len(streaming) == len(names):
                struck_at.update({other: seen[other].sent for other in names})
                service.workers()[0].kill()  # each serves one of the streams
            return name in struck_at and driven.sent >= struck_at[name] + 20

        async def scenario() -> list[Driven]:
            streams = (drive(service.address, n, functools.partial(until, n)) for n in names)
            return await asyncio.gather(*streams)

        for driven, name in zip(asyncio.run(scenario()), names, strict=True):
            assert driven.code is grpc.StatusCode.OK
            assert driven.indices == list(range(driven.sent))
            driven.assert_own(MARKS[name])
        assert metric(service, "moved_streams_total") == 1
        assert service.stop() == 0


def test_a_failed_device_ends_its_worker_and_not_the_stream(service: ServiceProcess) -> None:
    driven = asyncio.run(drive_past(service, "broken-device", 20))
    assert driven.code is grpc.StatusCode.OK
    assert 5 not in driven.indices
    driven.assert_own(50)


async def drive_past(service: ServiceProcess, name: str, index: int) -> Driven:
    """Drives a live stream until a frame after ``index`` was answered."""
    return await drive(
        service.address,
        name,
        lambda driven: bool(driven.indices) and driven.indices[-1] > index,
        interval_s=0.02,
        window=0,
        frame_mode=LATEST,
    )


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("corrupt", grpc.StatusCode.FAILED_PRECONDITION, "BUNDLE_TAMPERED"),
        ("huge", grpc.StatusCode.RESOURCE_EXHAUSTED, "OUT_OF_MEMORY"),
        ("huge-engine", grpc.StatusCode.RESOURCE_EXHAUSTED, "OUT_OF_MEMORY"),
    ],
)
def test_an_avatar_that_cannot_be_loaded_harms_nobody(
    service: ServiceProcess, name: str, code: grpc.StatusCode, reason: str
) -> None:
    async def scenario() -> tuple[Driven, Driven]:
        bad = drive(service.address, name, lambda driven: driven.sent == 1)
        good = drive(service.address, "anna", lambda driven: driven.sent == 20)
        return await asyncio.gather(bad, good)

    bad, good = asyncio.run(scenario())
    assert (bad.code, bad.reason) == (code, reason)
    assert good.indices == list(range(20))


def test_streams_open_though_all_workers_have_just_died(service: ServiceProcess) -> None:
    for _ in range(3):
        signal_workers(service, signal.SIGKILL)
        driven = asyncio.run(drive(service.address, "anna", lambda driven: driven.sent == 3))
        assert driven.code is grpc.StatusCode.OK
        assert driven.indices == [0, 1, 2]


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


def test_frames_that_wait_are_counted(service: ServiceProcess) -> None:
    requests = (face(index) for index in range(40))
    config = render_config("heavy", image_size_px=512)
    answers = Stub(service.channel).StreamFrames(
        iter([Request(config=config), *(Request(parameters=face) for face in requests)]), timeout=60
    )
    # Nobody reads: what gRPC does not take waits in front of the worker.
    assert eventually(lambda: metric(service, "queued_frames") > 0)
    assert len(list(answers)) == 41
    assert eventually(lambda: metric(service, "queued_frames") == 0)


def test_live_frames_that_come_too_late_are_dropped_and_counted(service: ServiceProcess) -> None:
    # 50 ms a frame: where four share a worker, frames wait longer than that.
    async def scenario() -> list[Driven]:
        streams = (
            drive(
                service.address,
                "heavy",
                lambda driven: driven.sent == 40,
                interval_s=0.02,
                window=0,
                frame_mode=LATEST,
                frame_deadline=Duration(nanos=30_000_000),
                frames_per_second=1,
            )
            for _ in range(8)
        )
        return await asyncio.gather(*streams)

    before = metric(service, 'dropped_frames_total{reason="late"}')
    for driven in asyncio.run(scenario()):
        assert driven.code is grpc.StatusCode.OK
        driven.assert_own(70)
    assert metric(service, 'dropped_frames_total{reason="late"}') > before


def test_streams_beyond_what_workers_can_hold_are_refused(service: ServiceProcess) -> None:
    async def scenario() -> tuple[list[Driven], Driven]:
        enough = asyncio.Event()

        def until(driven: Driven) -> bool:
            return enough.is_set()

        # 50 ms a frame at 42 frames per second: 2.1 of the 5 that each of two workers has, and
        # room for two where a busy machine measures up to 9 ms more.
        options = {"interval_s": 0.05, "frames_per_second": 42}
        held = []
        for _ in range(4):
            held.append(asyncio.create_task(drive(service.address, "heavy", until, **options)))
            await asyncio.sleep(0.3)
        refused = await drive(service.address, "heavy", lambda driven: driven.sent == 1, **options)
        enough.set()
        ended = await asyncio.gather(*held)
        again = await drive(service.address, "heavy", lambda driven: driven.sent == 1, **options)
        return [*ended, again], refused

    held, refused = asyncio.run(scenario())
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_CAPACITY")
    assert metric(service, 'refused_streams_total{reason="capacity"}') >= 1
    # Those that were admitted ended well, and what they left is free at once.
    assert [driven.code for driven in held] == [grpc.StatusCode.OK] * 5


def test_sigterm_under_load_loses_no_frame(avatars: Path) -> None:
    with start(avatars, worker_count=1, drain_timeout_s=6) as service:

        async def scenario() -> tuple[Driven, Driven, Driven]:
            told: list[int] = []

            def until(driven: Driven) -> bool:
                if len(driven.frames) >= 10 and not told:
                    told.append(service.process.pid)
                    service.process.send_signal(signal.SIGTERM)
                return bool(driven.frames) and driven.frames[-1].going_away

            streams = asyncio.gather(
                drive(service.address, "anna", until, interval_s=0.005, window=12),
                asyncio.to_thread(drive_to_the_end, service.address, "ben", interval_s=0.005),
            )
            await refusing(service.address)
            late = await drive(service.address, "anna", lambda driven: True)
            return *(await streams), late

        polite, stubborn, late = asyncio.run(scenario())
        assert polite.code is grpc.StatusCode.OK
        assert polite.indices == list(range(polite.sent))
        polite.assert_own(MARKS["anna"])
        assert (stubborn.code, stubborn.reason) == (grpc.StatusCode.UNAVAILABLE, "GOING_AWAY")
        assert stubborn.indices == list(range(len(stubborn.frames)))
        assert stubborn.frames[-1].going_away
        stubborn.assert_own(MARKS["ben"])
        assert late.code is grpc.StatusCode.UNAVAILABLE
        assert service.process.wait(30) == 0


async def refusing(address: str) -> None:
    """Waits until a service takes no new calls."""
    request = rendering_service_pb2.ListAvatarsRequest()
    code = None
    while code is not grpc.StatusCode.UNAVAILABLE:
        await asyncio.sleep(0.05)
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                await Stub(channel).ListAvatars(request, timeout=5)
        except grpc.aio.AioRpcError as error:
            code = error.code()


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

    refuse()
    with pytest.raises(grpc.RpcError) as caught:
        list(call(iter([bytes(34_000_000)]), timeout=20))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert {worker.pid for worker in service.workers()} == workers
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
