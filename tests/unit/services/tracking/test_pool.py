# SPDX-License-Identifier: Apache-2.0
"""Trackers in a real worker end with their streams, whenever these end."""

from __future__ import annotations

import asyncio
import errno
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.common.metrics import TrackingMetrics
from services.common.worker.options import WorkerOptions
from services.tracking.pool import TrackerOptions, TrackingPool

OPTIONS = WorkerOptions(
    "services.tracking.worker",
    options={
        "tracker": "tests.fakes.tracker:open_noting_tracker",
        "log_level": "INFO",
        "log_format": "text",
    },
)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.01)


def test_a_tracker_whose_stream_ends_while_it_is_opened_is_closed(tmp_path: Path) -> None:
    async def hold(pool: TrackingPool) -> None:
        async with pool.lane(TrackerOptions(model_id=str(tmp_path))):
            pytest.fail("the tracker was not to be opened in time")

    async def scenario() -> None:
        pool = TrackingPool(OPTIONS, 1, 20.0, TrackingMetrics(CollectorRegistry()))
        await pool.start()
        try:
            async with asyncio.timeout(60):
                stream = asyncio.create_task(hold(pool))
                await asyncio.to_thread(wait_for, tmp_path / "opening")
                stream.cancel()
                (tmp_path / "go").touch()
                with pytest.raises(asyncio.CancelledError):
                    await stream
                assert (tmp_path / "closed").exists()
        finally:
            await pool.stop()

    asyncio.run(scenario())


def test_streams_share_when_the_machine_has_no_process_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    async def scenario() -> None:
        pool = TrackingPool(OPTIONS, 2, 20.0, TrackingMetrics(CollectorRegistry()))
        (tmp_path / "go").touch()
        await pool.start()
        try:
            monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)
            options = TrackerOptions(model_id=str(tmp_path))
            async with asyncio.timeout(60), pool.lane(options) as one, pool.lane(options) as other:
                assert await one.open() is await other.open()
        finally:
            await pool.stop()

    asyncio.run(scenario())
