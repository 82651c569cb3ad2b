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
from collections.abc import Callable
from typing import Any, TypeVar

from services.common.worker.arena import SharedArena
from services.common.worker.lines import LineProtocol
from services.common.worker.messages import (
    BEAT_ID,
    PING,
    READY_ID,
    Command,
    decode_answer,
    encode_command,
)
from services.common.worker.options import WorkerOptions
from services.common.worker.pending import PendingCommands
from services.common.worker.pulse import Pulse
from services.common.worker.slots import SlotCall, SlotQueue
from styleavatar_core.errors import EngineUnavailableError, WorkerLostError

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

# One that does not go within this time when it is killed hangs in the kernel: nobody waits longer.
KILL_TIMEOUT_S = 5.0


class WorkerProcess:
    """One running child; useless once it has ended.

    Attributes:
        arena: Shared memory.
        ended: Set when the process is gone, for whatever reason.
        has_served: Whether it has done anything that it is for; answering a ping is nothing.
    """

    def __init__(self, options: WorkerOptions) -> None:
        self.arena = SharedArena.create(options.slot_count, options.slot_bytes)
        self.ended = asyncio.Event()
        self.has_served = False
        self._options = options
        self._pulse = Pulse(options)
        self._pending = PendingCommands(self._hangs)
        self._slots = SlotQueue(self.arena, self._begin)
        self._process: asyncio.subprocess.Process | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid if self._process else 0

    @property
    def memory_bytes(self) -> int:
        """What it took when it was last heard of."""
        return self._pulse.memory_bytes

    @property
    def waiting_count(self) -> int:
        """Commands that wait for a slot."""
        return self._slots.waiting_count

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
            self._transport, _ = await asyncio.get_running_loop().create_connection(
                lambda: LineProtocol(self._take, self._end), sock=ours
            )
        except BaseException:  # also when the whole service is stopped at this moment
            ours.close()
            raise
        ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending.expect(ready, "start", self._options.start_timeout_s, dict)
        watching = asyncio.create_task(self._watch_start())
        try:
            await ready
        except WorkerLostError as error:
            if self.ended.is_set():
                raise
            await self.stop()
            raise EngineUnavailableError(
                f"A worker was not ready after {self._options.start_timeout_s:.0f} s."
            ) from error
        finally:
            watching.cancel()

    async def _watch_start(self) -> None:
        """Ends a child that falls silent while it starts."""
        left_s = limit_s = self._options.busy_silence_s
        while left_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self.ended.wait()
                    return
            left_s = limit_s - self._pulse.silent_s
        self._hangs("start")

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
        self._require_alive()
        result: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        command_id = self._pending.expect(result, name, timeout_s, dict)
        self._send(Command(command_id, name, body))
        return await result

    def call_with_slot(
        self,
        name: str,
        body: dict[str, Any],
        *,
        write: Callable[[int], None],
        read: Callable[[int, dict[str, Any]], ResultT],
        timeout_s: float,
    ) -> SlotCall[ResultT]:
        """Gives a command with a slot of the shared memory, at once if one is free.

        Args:
            name: What to do.
            body: JSON-able arguments; ``slot`` is added.
            write: Puts what the worker needs into the slot; raises if it is not wanted any more.
            read: Makes the result of slot and answer.
            timeout_s: When this passes, the worker counts as hung and is killed.

        Returns:
            Is to be awaited; then raises ``WorkerLostError`` when the worker died or hung, and the
            ``StyleAvatarError`` that it reported.

        Raises:
            WorkerLostError: When the worker is gone already.
        """
        self._require_alive()
        result: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        call = SlotCall(name, body, write, read, timeout_s, result, self._slots.abandon)
        self._slots.add(call)
        return call

    def _begin(self, call: SlotCall[Any], slot: int) -> None:
        self._require_alive()
        self.arena.set_abandoned(slot, False)
        call.write(slot)
        command_id = self._pending.expect(
            call.result,
            call.name,
            call.timeout_s,
            functools.partial(call.read, slot),
            functools.partial(self._slots.release, call),
        )
        self._send(Command(command_id, call.name, {**call.body, "slot": slot}))

    def _require_alive(self) -> None:
        if self.ended.is_set():
            raise WorkerLostError("The worker process has ended.")

    def _send(self, command: Command) -> None:
        assert self._transport is not None, "not started"
        self._transport.write(encode_command(command))

    def _hangs(self, name: str) -> None:
        logger.error("worker hangs", extra={"pid": self.pid, "command": name})
        self.kill()

    def kill(self) -> None:
        """Ends the child at once."""
        if self._process is not None and self._process.returncode is None:
            # Not Process.kill(): it may reap the child before asyncio does.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """Ends the child: asks by closing the socket, then kills."""
        if self._transport is not None:
            self._transport.close()
        if not await self._has_gone(self._options.stop_timeout_s):
            self.kill()
            if not await self._has_gone(KILL_TIMEOUT_S):
                logger.critical("a worker cannot be killed", extra={"pid": self.pid})
        if self._transport is not None:
            await self.ended.wait()
        self.arena.close()

    async def _has_gone(self, timeout_s: float) -> bool:
        if self._process is None:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._process.wait()
        return self._process.returncode is not None

    def complaint(self) -> str:
        """Says why this worker should be replaced though it lives; empty when it should not."""
        return self._pulse.complaint(self._pending.patience_s)

    def _take(self, line: bytes) -> None:
        answer = decode_answer(line)
        self._pulse.hear()
        if answer.command_id == BEAT_ID:
            self._pulse.memory_bytes = answer.body["memory_bytes"]
            return
        name = self._pending.settle(answer)
        has_done = answer.command_id != READY_ID and answer.failure is None
        self.has_served |= has_done and name != PING

    def _end(self) -> None:
        self.ended.set()
        self._pending.lose_all()
