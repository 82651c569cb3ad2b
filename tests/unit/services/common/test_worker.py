# SPDX-License-Identifier: Apache-2.0
"""A real child process: answers, failures, slots, death, hanging, end."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import psutil
import pytest

from services.common.worker.arena import SharedArena
from services.common.worker.options import WorkerOptions
from services.common.worker.process import WorkerProcess
from services.common.worker.slots import SlotCall
from styleavatar_core.errors import (
    EngineUnavailableError,
    InvalidInputError,
    NotFoundError,
    RenderError,
    WorkerLostError,
)

OPTIONS = WorkerOptions("tests.fakes.echo_worker", slot_count=2, slot_bytes=64)


def with_worker(
    scenario: Callable[[WorkerProcess], Awaitable[None]], options: WorkerOptions = OPTIONS
) -> None:
    async def run() -> None:
        worker = WorkerProcess(options)
        try:
            await worker.start()
            async with asyncio.timeout(20):
                await scenario(worker)
        finally:
            await worker.stop()

    asyncio.run(run())


def test_an_arena_is_shared_by_its_descriptor() -> None:
    arena = SharedArena.create(2, 16)
    twin = SharedArena(os.dup(arena.descriptor), 2, 16)
    arena.write(1, b"abc", offset=2)
    assert twin.read(1, 3, offset=2) == b"abc"
    assert twin.read(0, 4) == bytes(4)
    with pytest.raises(InvalidInputError):
        arena.write(0, bytes(17))
    arena.close()
    arena.close()
    assert twin.read(1, 3, offset=2) == b"abc"
    twin.close()


def test_commands_are_answered_and_failures_keep_their_type() -> None:
    async def scenario(worker: WorkerProcess) -> None:
        assert await worker.call("echo", {"a": [1, 2.5]}, timeout_s=5) == {"a": [1, 2.5]}
        with pytest.raises(NotFoundError, match="no such thing"):
            await worker.call("refuse", {}, timeout_s=5)
        assert await worker.call("echo", {}, timeout_s=5) == {}

    with_worker(scenario)


def test_commands_that_wait_are_answered_together_each_with_its_own() -> None:
    async def scenario(worker: WorkerProcess) -> None:
        busy = asyncio.create_task(worker.call("stall", {"seconds": 1.0}, timeout_s=10))
        await asyncio.sleep(0.3)  # it is at work before the others come
        asked = (worker.call("gather", {"value": value}, timeout_s=10) for value in (1, -1, 3))
        _, first, bad, last = await asyncio.gather(busy, *asked, return_exceptions=True)
        assert first == {"value": 1, "count": 3}
        assert isinstance(bad, NotFoundError)
        assert last == {"value": 3, "count": 3}
        assert (await worker.call("gather", {"value": 4}, timeout_s=10))["count"] == 1
        with pytest.raises(RenderError):  # the handler itself fails: everybody is told
            await worker.call("gather", {}, timeout_s=10)

    with_worker(scenario)


def test_background_commands_do_not_hold_up_others() -> None:
    async def scenario(worker: WorkerProcess) -> None:
        slow = asyncio.create_task(worker.call("sleep", {"seconds": 1.0}, timeout_s=10))
        await worker.call("echo", {}, timeout_s=5)
        assert not slow.done()
        await slow

    with_worker(scenario)


def ask(worker: WorkerProcess, name: str = "echo", **body: object) -> SlotCall[int]:
    """Has a command carried out with a slot; gives its number."""
    return worker.call_with_slot(
        name,
        body,
        write=lambda slot: worker.arena.write(slot, b"x"),
        read=lambda slot, answer: slot,
        timeout_s=10,
    )


async def take(worker: WorkerProcess, name: str = "echo", **body: object) -> int:
    return await ask(worker, name, **body)


def test_a_slot_is_not_lent_again_before_its_work_is_done() -> None:
    async def scenario(worker: WorkerProcess) -> None:
        borrowed = [asyncio.create_task(take(worker, "sleep", seconds=0.5)) for _ in range(2)]
        await asyncio.sleep(0.01)
        for task in borrowed:
            task.cancel()  # the callers go, their work does not
        waiting = asyncio.create_task(take(worker))
        await worker.call("echo", {}, timeout_s=5)
        assert not waiting.done()
        # The worker can see that nobody waits; what has a slot next does not inherit the mark.
        assert [worker.arena.is_abandoned(slot) for slot in range(2)] == [True, True]
        assert worker.waiting_count == 1
        assert await waiting == 0
        assert not worker.arena.is_abandoned(0)
        assert worker.waiting_count == 0

    with_worker(scenario)


def test_a_command_with_a_slot_is_begun_before_anybody_waits_for_it() -> None:
    async def scenario(worker: WorkerProcess) -> None:
        calls = [ask(worker) for _ in range(OPTIONS.slot_count + 2)]
        assert [call.slot for call in calls] == [0, 1, None, None]
        calls[2].abandon()  # never gets a slot
        assert worker.waiting_count == 1
        assert [await calls[index] for index in (0, 1, 3)] == [0, 1, 0]
        # What was answered has no slot any more that could be marked: another may have it now.
        for call in calls:
            call.abandon()
        assert not any(worker.arena.is_abandoned(slot) for slot in range(OPTIONS.slot_count))

    with_worker(scenario)


def test_a_slot_that_was_not_wanted_after_all_is_free() -> None:
    async def scenario(worker: WorkerProcess) -> None:
        for _ in range(2 * OPTIONS.slot_count):
            with pytest.raises(InvalidInputError):
                await worker.call_with_slot(
                    "echo",
                    {},
                    write=lambda slot: worker.arena.write(slot, bytes(OPTIONS.slot_bytes + 1)),
                    read=lambda slot, answer: answer,
                    timeout_s=5,
                )
        assert await take(worker) in (0, 1)
        os.kill(worker.pid, signal.SIGKILL)
        for _ in range(2 * OPTIONS.slot_count):
            with pytest.raises(WorkerLostError):
                await take(worker)

    with_worker(scenario)


def test_death_and_hanging_are_told_to_who_waits() -> None:
    async def scenario(worker: WorkerProcess) -> None:
        waiting = asyncio.create_task(worker.call("sleep", {"seconds": 30}, timeout_s=30))
        await asyncio.sleep(0.05)
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerLostError):
            await waiting
        with pytest.raises(WorkerLostError):
            await worker.call("echo", {}, timeout_s=5)

    async def hanging(worker: WorkerProcess) -> None:
        with pytest.raises(WorkerLostError, match="did not answer"):
            await worker.call("sleep", {"seconds": 30}, timeout_s=0.1)
        await worker.ended.wait()

    with_worker(scenario)
    with_worker(hanging)


def test_a_worker_that_cannot_start_says_why() -> None:
    async def never(worker: WorkerProcess) -> None:
        raise AssertionError

    broken = WorkerOptions("tests.fakes.echo_worker", options={"refuse": True})
    with pytest.raises(EngineUnavailableError, match="refuses to start"):
        with_worker(never, broken)
    stuck = WorkerOptions("tests.fakes.echo_worker", options={"stall": 30}, start_timeout_s=0.5)
    with pytest.raises(EngineUnavailableError, match="not ready"):
        with_worker(never, stuck)
    hung = WorkerOptions(
        "tests.fakes.echo_worker", options={"freeze": True}, busy_silence_s=2.0
    )  # the kernel's signal: it stops as a whole, its signs of life too
    with pytest.raises(WorkerLostError):
        with_worker(never, hung)


def test_a_worker_ends_when_its_parent_is_gone() -> None:
    async def scenario() -> psutil.Process:
        worker = WorkerProcess(OPTIONS)
        await worker.start()
        child = psutil.Process(worker.pid)
        worker._transport.abort()  # as the kernel does when a parent is killed
        await worker.ended.wait()
        await worker.stop()
        return child

    child = asyncio.run(scenario())
    deadline = time.monotonic() + 5
    while child.is_running() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not child.is_running()


@pytest.mark.parametrize(
    ("busy_silence_s", "stopped_s", "hangs"), [(60.0, 1.5, False), (4.0, 5.5, True)]
)
def test_a_worker_at_a_command_that_may_take_long_may_be_silent_for_longer(
    busy_silence_s: float, stopped_s: float, hangs: bool
) -> None:
    async def scenario(worker: WorkerProcess) -> None:
        slow = asyncio.create_task(worker.call("sleep", {"seconds": 30}, timeout_s=60))
        await asyncio.sleep(0)
        os.kill(worker.pid, signal.SIGSTOP)
        await asyncio.sleep(
            stopped_s
        )  # a last sign of life may still lie in the socket for a while
        assert ("silent" in worker.complaint()) == hangs
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)
        assert "silent" in worker.complaint()
        worker.kill()

    with_worker(scenario, replace(OPTIONS, silence_timeout_s=0.3, busy_silence_s=busy_silence_s))
