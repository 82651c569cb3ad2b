# SPDX-License-Identifier: Apache-2.0
"""A place for a worker is filled again whatever happens, and nobody waits there for nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace

import psutil
import pytest

from services.common.worker.messages import PING
from services.common.worker.options import WorkerOptions
from services.common.worker.process import WorkerProcess
from services.common.worker.standby import StandBy
from services.common.worker.supervisor import BREAKER_DEATHS, WorkerSupervisor
from styleavatar_core.errors import WorkerLostError

OPTIONS = WorkerOptions("tests.fakes.echo_worker", slot_count=2, slot_bytes=64)


class OutOfProcesses(StandBy):
    """Starts the first worker; for the second the machine lacks something for a while."""

    def __init__(self) -> None:
        super().__init__(OPTIONS)
        self.failures = 0

    async def take(self) -> WorkerProcess:
        worker = await super().take()
        if self.failures == 0:
            self.failures = 1
        elif self.failures == 1:
            self.failures = 2
            await worker.stop()
            raise BlockingIOError("Resource temporarily unavailable")
        return worker


def test_callers_are_not_kept_waiting_when_workers_keep_dying() -> None:
    async def scenario() -> None:
        supervisor = WorkerSupervisor(OPTIONS)
        await supervisor.start()
        for _ in range(BREAKER_DEATHS):
            worker = await supervisor.worker(30)
            await worker.call(PING, {}, timeout_s=10)  # which anyone can who is of no use
            worker.kill()
            await worker.ended.wait()
            await asyncio.sleep(0.01)
        assert supervisor.is_given_up
        with pytest.raises(WorkerLostError, match="in a row"):
            await supervisor.worker(30)
        assert await supervisor.wait(30)
        assert not supervisor.is_given_up
        worker = await supervisor.worker(0)
        assert await worker.call("echo", {"a": 1}, timeout_s=10) == {"a": 1}
        worker.kill()
        await worker.ended.wait()
        await asyncio.sleep(0.01)
        assert not supervisor.is_given_up  # this one was of use
        await supervisor.stop()

    asyncio.run(scenario())


def test_a_place_is_filled_though_the_machine_had_no_process_for_a_while() -> None:
    async def scenario() -> None:
        source = OutOfProcesses()
        supervisor = WorkerSupervisor(OPTIONS, source=source)
        await supervisor.start()
        first = await supervisor.worker(0)
        first.kill()
        await first.ended.wait()
        assert await supervisor.wait(30)
        assert await supervisor.worker(0) is not first
        assert source.failures == 2
        await supervisor.stop()

    asyncio.run(scenario())


def test_a_worker_whose_end_cannot_be_seen_is_replaced() -> None:
    async def scenario() -> None:
        replaced = asyncio.Event()
        supervisor = WorkerSupervisor(replace(OPTIONS, silence_timeout_s=1.5), replaced.set)
        await supervisor.start()
        first = await supervisor.worker(0)
        child = (await first.call("spawn", {}, timeout_s=10))["pid"]
        try:
            first.kill()  # its socket stays open: its child has it
            async with asyncio.timeout(60):
                await replaced.wait()
            assert await supervisor.wait(30)
            assert await supervisor.worker(0) is not first
            await supervisor.stop()
        finally:
            os.kill(child, signal.SIGKILL)

    asyncio.run(scenario())


def test_a_supervisor_replaces_and_in_the_end_leaves_nothing() -> None:
    async def scenario() -> tuple[int, int]:
        restarts: list[int] = []
        supervisor = WorkerSupervisor(OPTIONS, lambda: restarts.append(1))
        await supervisor.start()
        first = await supervisor.worker(5)
        os.kill(first.pid, signal.SIGKILL)
        await first.ended.wait()
        await asyncio.sleep(0)
        second = await supervisor.worker(20)
        assert second is not first
        assert restarts == [1]
        pids = first.pid, second.pid
        await supervisor.stop()
        return pids

    for pid in asyncio.run(scenario()):
        assert not psutil.pid_exists(pid)


@pytest.mark.parametrize(
    ("change", "number"),
    [({"silence_timeout_s": 1.5}, signal.SIGSTOP), ({"memory_limit_bytes": 1_000_000}, 0)],
)
def test_a_worker_that_falls_silent_or_grows_is_replaced(change: dict, number: int) -> None:
    async def scenario() -> None:
        replaced = asyncio.Event()
        supervisor = WorkerSupervisor(replace(OPTIONS, **change), replaced.set)
        await supervisor.start()
        os.kill(supervisor.pid, number)
        async with asyncio.timeout(30):
            await replaced.wait()
        await supervisor.stop()

    asyncio.run(scenario())
