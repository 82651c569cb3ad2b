# SPDX-License-Identifier: Apache-2.0
"""A worker that stands by, started and warm, for the first place that loses its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from services.common.worker.messages import PING
from services.common.worker.options import WorkerOptions
from services.common.worker.process import WorkerProcess
from styleavatar_core.errors import StyleAvatarError, WorkerLostError

logger = logging.getLogger(__name__)

# The worker that was taken loads what its place had: the next one starts after that, not beside it.
REST_S = 5.0
# One that stood by and does not answer in this time hangs; another is started.
PING_TIMEOUT_S = 2.0
# A start that failed, or a worker that soon died, is followed by another after so many rests: why
# may pass, and until then trying costs those who serve.
RESTS_AFTER_FAILURE = 12
# A worker that lived this long, serving or standing by, is not in a crash loop.
HEALTHY_AFTER_S = 30.0

Rehearsal = Callable[[WorkerProcess], Awaitable[None]]


async def start_worker(options: WorkerOptions) -> WorkerProcess:
    """Starts a process; leaves nothing behind if it fails.

    Raises:
        StyleAvatarError: When it does not start.
    """
    worker = WorkerProcess(options)
    try:
        await worker.start()
    except BaseException:
        worker.kill()
        await worker.stop()
        raise
    return worker


class StandBy:
    """Starts workers for several places, one of them ahead of need."""

    def __init__(
        self, options: WorkerOptions, rehearse: Rehearsal | None = None, rest_s: float = REST_S
    ) -> None:
        """Prepares; nothing is started ahead before ``begin``.

        Args:
            options: How to start a process.
            rehearse: Makes a process warm before anybody needs it; its errors are logged.
            rest_s: How long after one was taken, or has died, the next is started.
        """
        self._options = options
        self._rehearse = rehearse
        self._rest_s = rest_s
        self._hurry = asyncio.Event()
        self._next: asyncio.Task[WorkerProcess] | None = None
        self._keeping: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Has a worker stand by from now on."""
        self._hurry = asyncio.Event()
        self._next = asyncio.create_task(self._prepare(self._hurry))
        self._keeping = asyncio.create_task(self._keep(self._next))

    async def take(self) -> WorkerProcess:
        """Returns a running worker: the one that stands by, if it does and lives.

        Raises:
            StyleAvatarError: When none can be started.
        """
        if self._next is None or self._keeping is None:
            return await start_worker(self._options)
        self._keeping.cancel()
        self._hurry.set()
        ahead = self._next
        self.begin()
        worker = await ahead
        try:
            await worker.call(PING, {}, timeout_s=PING_TIMEOUT_S)
        except WorkerLostError:  # it has died, or hangs
            await worker.stop()
            return await start_worker(self._options)
        return worker

    @property
    def _waiting(self) -> WorkerProcess | None:
        if self._next is None or not self._next.done() or self._next.exception() is not None:
            return None
        return self._next.result()

    @property
    def is_ready(self) -> bool:
        """Whether a worker stands by now."""
        return self._waiting is not None and not self._waiting.ended.is_set()

    @property
    def memory_bytes(self) -> int:
        """Memory of the worker that stands by when it was last heard of."""
        return self._waiting.memory_bytes if self._waiting else 0

    async def stop(self) -> None:
        """Ends the worker that stands by."""
        if self._next is None or self._keeping is None:
            return
        self._keeping.cancel()
        self._next.cancel()
        with contextlib.suppress(asyncio.CancelledError, StyleAvatarError, OSError):
            worker = await self._next
            await worker.stop()
        self._next = None

    async def _keep(self, ahead: asyncio.Task[WorkerProcess]) -> None:
        """Has another worker stand by when one has died, or could not be started."""
        await asyncio.wait([ahead])
        ready_s = time.monotonic()
        if (error := ahead.exception()) is not None:
            logger.warning("no worker stands by", extra={"reason": str(error)})
        else:
            worker = ahead.result()
            await worker.ended.wait()
            logger.warning("a worker died while it stood by", extra={"pid": worker.pid})
            await worker.stop()
        if time.monotonic() - ready_s < HEALTHY_AFTER_S:
            await asyncio.sleep(RESTS_AFTER_FAILURE * self._rest_s)
        self.begin()

    async def _prepare(self, hurry: asyncio.Event) -> WorkerProcess:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._rest_s):
                await hurry.wait()
        worker = await start_worker(self._options)
        try:
            if self._rehearse is not None and not hurry.is_set():
                await self._rehearse(worker)
        except StyleAvatarError as error:
            logger.warning("a worker stands by cold", extra={"reason": str(error)})
        except BaseException:
            await worker.stop()
            raise
        return worker
