# SPDX-License-Identifier: Apache-2.0
"""More frames or streams than the workers can render, and a signal in the midst of them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from styleavatar.v1 import rendering_service_pb2

from tests.integration.faulty_rendering import (
    MARKS,
    Request,
    Stub,
    eventually,
    metric,
    serving,
    start,
    write_avatars,
)
from tests.integration.live_stream import Driven, drive, drive_to_the_end
from tests.integration.service_process import ServiceProcess
from tests.integration.stream_helpers import LATEST, face, render_config


@pytest.fixture(scope="module")
def avatars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_avatars(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def service(avatars: Path) -> Iterator[ServiceProcess]:
    with serving(avatars) as process:
        yield process


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
