# SPDX-License-Identifier: Apache-2.0
"""Keeps one worker process alive: starts it, replaces it when it dies, stops it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from services.common.worker.options import WorkerOptions
from services.common.worker.process import KILL_TIMEOUT_S, WorkerProcess
from services.common.worker.standby import HEALTHY_AFTER_S, StandBy
from styleavatar_core.errors import StyleAvatarError, WorkerLostError

logger = logging.getLogger(__name__)

BACK_OFF_FIRST_S = 0.1
BACK_OFF_MAX_S = 10.0
# Workers in a row that died before they had served anybody, after which callers are refused
# instead of kept waiting.
BREAKER_DEATHS = 5
CHECK_INTERVAL_S = 1.0


class WorkerSupervisor:
    """One place for a worker; the process in it changes, what it remembers is lost with it.

    Attributes:
        restart_count: How often the process was replaced.
    """

    def __init__(
        self,
        options: WorkerOptions,
        on_restart: Callable[[], None] = lambda: None,
        source: StandBy | None = None,
    ) -> None:
        """Prepares the place.

        Args:
            options: How to start the process.
            on_restart: Called each time that a process is replaced.
            source: Where processes come from, when one stands by for several places.
        """
        self.restart_count = 0
        self._useless_deaths = 0
        self._back_off_s = 0.0
        self._source = source or StandBy(options)
        self._on_restart = on_restart
        self._worker: WorkerProcess | None = None
        self._ready = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Process id of the present worker, 0 when there is none."""
        return self._worker.pid if self._worker and self.is_ready else 0

    @property
    def is_ready(self) -> bool:
        """Whether a worker is there now."""
        return self.present is not None

    @property
    def present(self) -> WorkerProcess | None:
        """The worker that is there now; None while it is being replaced."""
        worker = self._worker
        if worker is None or not self._ready.is_set() or worker.ended.is_set():
            return None
        return worker

    @property
    def is_given_up(self) -> bool:
        """Whether there is no worker and they keep dying, so that nobody should wait for one."""
        return not self.is_ready and self._useless_deaths >= BREAKER_DEATHS

    async def start(self) -> None:
        """Starts the first process; its failure is the caller's to see."""
        self._adopt(await self._source.take())
        self._keeping = asyncio.create_task(self._keep())

    async def worker(self, timeout_s: float) -> WorkerProcess:
        """Returns the present process; waits while it is being replaced.

        Raises:
            WorkerLostError: When there is none in time, or workers keep dying.
        """
        if (worker := self.present) is not None:
            return worker
        if self.is_given_up:
            raise WorkerLostError(
                f"Worker processes died {self._useless_deaths} times in a row; the log says why."
            )
        if not await self.wait(timeout_s):
            raise WorkerLostError(
                "The worker process died and no new one has started yet; try again soon."
            )
        assert self._worker is not None
        return self._worker

    async def wait(self, timeout_s: float) -> bool:
        """Waits for a process to be there; says whether one is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not self.is_ready:
                    await self._ready.wait()
                    await asyncio.sleep(0)  # one that has just ended is about to be noticed
        return self.is_ready

    async def stop(self) -> None:
        """Ends the process and does not replace it."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        self._ready.clear()
        if self._worker is not None:
            await self._worker.stop()
            self._worker = None

    @property
    def memory_bytes(self) -> int:
        """Memory of the present worker when it was last heard of."""
        return self._worker.memory_bytes if self._worker and self.is_ready else 0

    @property
    def waiting_count(self) -> int:
        """Commands that wait for a slot of the present worker."""
        return self._worker.waiting_count if self._worker and self.is_ready else 0

    async def _watch(self, worker: WorkerProcess) -> None:
        """Waits for the end of a process, and brings it about when it is of no more use."""
        while not await _ends_within(worker, CHECK_INTERVAL_S):
            if complaint := worker.complaint():
                logger.error("worker is replaced", extra={"pid": worker.pid, "reason": complaint})
                worker.kill()
                # What it has started may hold its socket open: its end need not be seen there.
                await _ends_within(worker, KILL_TIMEOUT_S)
                return

    def _adopt(self, worker: WorkerProcess) -> None:
        self._worker = worker
        worker.has_served = False  # nor does a rehearsal count
        self._started_at = time.monotonic()
        self._ready.set()
        logger.info("worker ready", extra={"worker_pid": worker.pid})

    async def _keep(self) -> None:
        while True:
            assert self._worker is not None
            await self._watch(self._worker)
            self._ready.clear()
            logger.warning("worker died", extra={"worker_pid": self._worker.pid})
            self._useless_deaths = 0 if self._worker.has_served else self._useless_deaths + 1
            if time.monotonic() - self._started_at > HEALTHY_AFTER_S:
                self._back_off_s = 0.0
            self._worker.kill()
            await self._worker.stop()
            self._adopt(await self._replacement())

    async def _replacement(self) -> WorkerProcess:
        """Returns a new process: the first time at once, later and later if they keep dying."""
        while True:
            await asyncio.sleep(self._back_off_s)
            self._back_off_s = min(max(2 * self._back_off_s, BACK_OFF_FIRST_S), BACK_OFF_MAX_S)
            self.restart_count += 1
            self._on_restart()
            try:
                return await self._source.take()
            except (StyleAvatarError, OSError) as error:  # the latter: no memory, no processes
                logger.error("worker did not start", extra={"reason": str(error)})
                self._useless_deaths += 1


async def _ends_within(worker: WorkerProcess, timeout_s: float) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await worker.ended.wait()
    return worker.ended.is_set()
