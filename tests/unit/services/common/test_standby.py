# SPDX-License-Identifier: Apache-2.0
"""A process that stands by takes the place of one that died, whole and at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import psutil
import pytest

from services.common.worker import standby as standby_module
from services.common.worker.options import WorkerOptions
from services.common.worker.process import WorkerProcess
from services.common.worker.standby import RESTS_AFTER_FAILURE, Rehearsal, StandBy, start_worker
from services.common.worker.supervisor import WorkerSupervisor
from styleavatar_core.errors import EngineUnavailableError, RenderError

OPTIONS = WorkerOptions("tests.fakes.echo_worker", slot_count=2, slot_bytes=64)


class Rehearsed:
    """Notes the workers that were rehearsed."""

    def __init__(self, error: Exception | None = None) -> None:
        self.workers: asyncio.Queue[WorkerProcess] = asyncio.Queue()
        self._error = error

    async def __call__(self, worker: WorkerProcess) -> None:
        await worker.call("echo", {}, timeout_s=5)
        self.workers.put_nowait(worker)
        if self._error is not None:
            raise self._error


def with_standby(
    scenario: Callable[[StandBy], Awaitable[None]],
    rehearse: Rehearsal | None = None,
    rest_s: float = 0.0,
) -> None:
    before = psutil.Process().children()

    async def run() -> None:
        standby = StandBy(OPTIONS, rehearse, rest_s)
        standby.begin()
        try:
            async with asyncio.timeout(60):
                await scenario(standby)
        finally:
            await standby.stop()
        assert psutil.Process().children() == before

    asyncio.run(run())


@pytest.mark.parametrize("error", [None, RenderError("cold")])
def test_a_place_gets_the_one_that_was_rehearsed(error: Exception | None) -> None:
    rehearsed = Rehearsed(error)

    async def scenario(standby: StandBy) -> None:
        supervisor = WorkerSupervisor(OPTIONS, source=standby)
        first = await rehearsed.workers.get()
        await supervisor.start()
        assert supervisor.pid == first.pid
        second = await rehearsed.workers.get()
        os.kill(first.pid, signal.SIGKILL)
        await first.ended.wait()
        assert await supervisor.worker(20) is second
        assert not second.has_served
        await supervisor.stop()

    with_standby(scenario, rehearsed)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_one_that_died_or_hangs_while_it_stood_by_is_not_given(number: signal.Signals) -> None:
    rehearsed = Rehearsed()

    async def scenario(standby: StandBy) -> None:
        dead = await rehearsed.workers.get()
        os.kill(dead.pid, number)
        worker = await standby.take()
        assert await worker.call("echo", {"a": 1}, timeout_s=5) == {"a": 1}
        await worker.stop()

    with_standby(scenario, rehearsed)


def test_another_one_stands_by_when_one_has_died() -> None:
    rehearsed = Rehearsed()

    async def scenario(standby: StandBy) -> None:
        dead = await rehearsed.workers.get()
        os.kill(dead.pid, signal.SIGKILL)
        next_one = await rehearsed.workers.get()
        worker = await standby.take()
        assert worker is next_one
        await worker.stop()

    with_standby(scenario, rehearsed)


def test_workers_that_die_of_their_rehearsal_come_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    dying: asyncio.Queue[int] = asyncio.Queue()
    pauses_s: list[float] = []
    sleep = asyncio.sleep

    async def die(worker: WorkerProcess) -> None:
        dying.put_nowait(worker.pid)
        os.kill(worker.pid, signal.SIGKILL)
        await worker.call("echo", {}, timeout_s=5)

    async def note(delay_s: float) -> None:
        pauses_s.append(delay_s)
        await sleep(0)

    async def scenario(standby: StandBy) -> None:
        first = await dying.get()
        assert await dying.get() != first
        assert RESTS_AFTER_FAILURE * 0.01 in pauses_s

    monkeypatch.setattr(standby_module.asyncio, "sleep", note)
    with_standby(scenario, die, rest_s=0.01)


def test_a_start_ahead_that_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts, rehearsed = [], Rehearsed()

    async def start_second(options: WorkerOptions) -> WorkerProcess:
        attempts.append(options)
        if len(attempts) == 1:
            raise EngineUnavailableError("there is no memory now")
        return await start_worker(options)

    async def scenario(standby: StandBy) -> None:
        await rehearsed.workers.get()
        assert len(attempts) == 2

    monkeypatch.setattr(standby_module, "start_worker", start_second)
    with_standby(scenario, rehearsed)


def test_who_needs_one_does_not_wait_for_the_rest_of_the_one_before() -> None:
    async def scenario(standby: StandBy) -> None:
        for _ in range(2):
            worker = await standby.take()
            await worker.stop()

    with_standby(scenario, rest_s=1000.0)


def test_a_start_that_fails_is_told_to_who_takes() -> None:
    async def scenario() -> None:
        standby = StandBy(WorkerOptions("tests.fakes.echo_worker", options={"refuse": True}))
        with pytest.raises(EngineUnavailableError, match="refuses to start"):
            await standby.take()
        await standby.stop()

    asyncio.run(scenario())
