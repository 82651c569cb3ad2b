# SPDX-License-Identifier: Apache-2.0
"""Workers that die or hang under streams, and avatars that they cannot load."""

from __future__ import annotations

import asyncio
import functools
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest

from tests.fakes.renderer import CLOSED_NAME
from tests.integration.faulty_rendering import (
    MARKS,
    eventually,
    metric,
    serving,
    signal_workers,
    start,
    write_avatars,
)
from tests.integration.live_stream import Driven, drive
from tests.integration.service_process import ServiceProcess
from tests.integration.stream_helpers import LATEST


@pytest.fixture(scope="module")
def avatars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_avatars(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def service(avatars: Path) -> Iterator[ServiceProcess]:
    with serving(avatars) as process:
        yield process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_live_streams_outlive_workers_that_die_or_hang(
    service: ServiceProcess, number: signal.Signals
) -> None:
    # A third may stand by; one that hangs there is noticed when it is needed.
    old = sorted(service.workers(), key=psutil.Process.create_time)[:2]

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
    # One that hangs without a stream is noticed by its silence, maybe after the streams' end.
    struck = {worker.pid for worker in old}
    assert eventually(lambda: struck.isdisjoint(worker.pid for worker in service.workers()))


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
        ("huge-frames", grpc.StatusCode.RESOURCE_EXHAUSTED, "OUT_OF_MEMORY"),
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


def test_an_avatar_whose_first_frame_fails_is_let_go(
    service: ServiceProcess, avatars: Path
) -> None:
    closed = avatars / "huge-frames" / CLOSED_NAME
    closed.unlink(missing_ok=True)
    driven = asyncio.run(drive(service.address, "huge-frames", lambda driven: driven.sent == 1))
    assert driven.reason == "OUT_OF_MEMORY"
    assert eventually(closed.exists)


def test_streams_open_though_all_workers_have_just_died(service: ServiceProcess) -> None:
    for _ in range(3):
        signal_workers(service, signal.SIGKILL)
        driven = asyncio.run(drive(service.address, "anna", lambda driven: driven.sent == 3))
        assert driven.code is grpc.StatusCode.OK
        assert driven.indices == [0, 1, 2]
