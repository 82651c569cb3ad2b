# SPDX-License-Identifier: Apache-2.0
"""The parent's side of one worker process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from services.common.errors import error_from_words
from services.common.worker.arena import SharedArena
from services.common.worker.messages import (
    BEAT_ID,
    LINE_BYTES_LIMIT,
    READY_ID,
    Answer,
    Command,
    decode_answer,
    encode_line,
)
from styleavatar_core.errors import EngineUnavailableError, WorkerLostError

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker process is started.

    Attributes:
        module: Python module that the child runs.
        options: JSON-able settings for the child.
        environment: Variables that the child gets besides the parent's.
        slot_count: Slots of the shared memory.
        slot_bytes: Bytes of each slot.
        start_timeout_s: How long imports and warm-up may take.
        stop_timeout_s: How long a stop may take before the process is killed.
        silence_timeout_s: A worker that gives no sign of life for so long counts as hung, unless it
            is at a command that may take longer.
        memory_limit_bytes: A worker that takes more is replaced; 0 for no limit.
    """

    module: str
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    slot_count: int = 2
    slot_bytes: int = 4 * 1024 * 1024
    start_timeout_s: float = 120.0
    stop_timeout_s: float = 3.0
    silence_timeout_s: float = 10.0
    memory_limit_bytes: int = 0


class WorkerProcess:
    """One running child; useless once it has ended.

    Attributes:
        arena: Shared memory.
        ended: Set when the process is gone, for whatever reason.
        memory_bytes: What it took when it was last heard of.
        has_served: Whether it has done anything that it was asked for.
    """

    def __init__(self, options: WorkerOptions) -> None:
        self.arena = SharedArena.create(options.slot_count, options.slot_bytes)
        self.ended = asyncio.Event()
        self.memory_bytes = 0
        self.has_served = False
        self._options = options
        self._heard_s = time.monotonic()
        self._timeouts_s: dict[int, float] = {}
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._next_id = READY_ID + 1
        self._borrowed: set[asyncio.Future[Any]] = set()
        self._free_slots: asyncio.Queue[int] = asyncio.Queue()
        for slot in range(options.slot_count):
            self._free_slots.put_nowait(slot)
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Starts the child and waits until it is ready.

        Raises:
            EngineUnavailableError: When it says that it cannot work here, or not in time.
            WorkerLostError: When it dies first.
        """
        ours, theirs = socket.socketpair()
        arena = self.arena
        arguments = ["-m", self._options.module, "--socket", str(theirs.fileno())]
        arguments += ["--arena", *map(str, (arena.descriptor, arena.slot_count, arena.slot_bytes))]
        arguments += ["--options", json.dumps(self._options.options)]
        try:
            with theirs:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *arguments,
                    stdin=asyncio.subprocess.DEVNULL,
                    env={**os.environ, **self._options.environment},
                    pass_fds=(theirs.fileno(), arena.descriptor),
                )
            reader, self._writer = await asyncio.open_connection(sock=ours, limit=LINE_BYTES_LIMIT)
        except BaseException:  # also when the whole service is stopped at this moment
            ours.close()
            raise
        ready = asyncio.get_running_loop().create_future()
        self._waiting[READY_ID] = ready
        self._reading = asyncio.create_task(self._read(reader))
        try:
            async with asyncio.timeout(self._options.start_timeout_s):
                await ready
        except TimeoutError:
            await self.stop()
            raise EngineUnavailableError(
                f"A worker was not ready after {self._options.start_timeout_s:.0f} s."
            ) from None

    async def call(self, name: str, body: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """Gives a command and waits for its result.

        Args:
            name: What to do.
            body: JSON-able arguments.
            timeout_s: When this passes, the worker counts as hung and is killed.

        Returns:
            The result.

        Raises:
            WorkerLostError: When the worker died or hung.
            StyleAvatarError: What the worker reported.
        """
        if self.ended.is_set() or self._writer is None:
            raise WorkerLostError("The worker process has ended.")
        command = Command(self._next_id, name, body)
        self._next_id += 1
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[command.command_id] = future
        self._timeouts_s[command.command_id] = timeout_s
        try:
            self._writer.write(encode_line(command))
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            logger.error("worker hangs", extra={"pid": self.pid, "command": name})
            self.kill()
            raise WorkerLostError(
                f"The worker did not answer '{name}' within {timeout_s:.0f} s and was stopped."
            ) from None
        finally:
            self._waiting.pop(command.command_id, None)
            self._timeouts_s.pop(command.command_id, None)

    async def with_slot(self, work: Callable[[int], Awaitable[ResultT]]) -> ResultT:
        """Does something with a slot of the shared memory, lent in the order of asking.

        Work that has begun goes on to its end when the caller is cancelled: the worker may still
        write into the slot, and nobody else may have it until then.

        Args:
            work: Gets the slot.

        Returns:
            Its result.
        """
        slot = await self._free_slots.get()
        task = asyncio.ensure_future(work(slot))
        self._borrowed.add(task)
        task.add_done_callback(functools.partial(self._return_slot, slot))
        return await asyncio.shield(task)

    def _return_slot(self, slot: int, task: asyncio.Future[Any]) -> None:
        self._borrowed.discard(task)
        self._free_slots.put_nowait(slot)
        if not task.cancelled():
            task.exception()  # a caller that has gone must not leave a warning

    def kill(self) -> None:
        """Ends the child at once."""
        if self._process is not None and self._process.returncode is None:
            # Not Process.kill(): it may reap the child before asyncio does.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """Ends the child: asks by closing the socket, then kills."""
        if self._writer is not None:
            self._writer.close()
        if self._process is not None:
            try:
                async with asyncio.timeout(self._options.stop_timeout_s):
                    await self._process.wait()
            except TimeoutError:
                self.kill()
                await self._process.wait()
        if self._reading is not None:
            await self._reading
        self.arena.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                self._settle(decode_answer(line))
        except (ConnectionError, ValueError):
            logger.warning("worker channel broke", extra={"pid": self.pid})
            self.kill()
        self.ended.set()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(WorkerLostError("The worker process died."))
                future.exception()  # a caller that has gone must not leave a warning

    def complaint(self) -> str:
        """Says why this worker should be replaced though it lives; empty when it should not."""
        limit = self._options.memory_limit_bytes
        if limit and self.memory_bytes > limit:
            return f"it takes {self.memory_bytes / 1e6:.0f} MB, more than {limit / 1e6:.0f} MB"
        silent_s = time.monotonic() - self._heard_s
        patience_s = max(self._options.silence_timeout_s, *self._timeouts_s.values(), 0.0)
        may_take_longer = patience_s > self._options.silence_timeout_s
        if silent_s > self._options.silence_timeout_s and not may_take_longer:
            return f"it has been silent for {silent_s:.0f} s"
        return ""

    def _settle(self, answer: Answer) -> None:
        self._heard_s = time.monotonic()
        if answer.command_id == BEAT_ID:
            self.memory_bytes = answer.body["memory_bytes"]
            return
        future = self._waiting.get(answer.command_id)
        if future is None or future.done():
            return
        if answer.failure is None:
            self.has_served |= answer.command_id != READY_ID
            future.set_result(answer.body)
        else:
            failure = answer.failure
            future.set_exception(error_from_words(failure.kind, failure.reason, failure.message))
            future.exception()
