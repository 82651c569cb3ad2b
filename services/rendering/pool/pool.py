# SPDX-License-Identifier: Apache-2.0
"""All workers: started, warmed up and stopped, and the ways to them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from services.common.metrics import RenderingMetrics
from services.common.worker.process import WorkerProcess
from services.common.worker.standby import StandBy
from services.rendering.catalog import AvatarEntry
from services.rendering.pool.admission import Admission
from services.rendering.pool.calls import PATIENCE_S, load_engine, unload_engine
from services.rendering.pool.capacity import FrameCosts
from services.rendering.pool.devices import DeviceWorkers
from services.rendering.pool.lane import Lane
from services.rendering.pool.limits import PoolLimits
from services.rendering.pool.reservations import Reservation
from services.rendering.pool.worker import PoolWorker
from styleavatar_core.errors import OverloadedError, WorkerLostError

logger = logging.getLogger(__name__)

# Workers may die while they load an avatar for a stream; on this many it is given up.
OPENING_ATTEMPTS = 3
# An avatar that was loaded before has its engine built; a worker must not be kept by a rehearsal.
REHEARSAL_TIMEOUT_S = 120.0


class RenderPool:
    """All workers of this service.

    Attributes:
        on_change: Gets the id of an avatar that came to a worker or went from one.
        admission: Says who gets room.
    """

    def __init__(
        self,
        devices: Sequence[DeviceWorkers],
        limits: PoolLimits,
        metrics: RenderingMetrics,
        *,
        utilization_limit: float = 1.0,
        stand_by: bool = False,
    ) -> None:
        """Prepares the workers.

        Args:
            devices: How many each device has, and how they are started.
            limits: What each is allowed.
            metrics: Where loads and restarts are counted.
            utilization_limit: Share of a worker's time that streams may reserve.
            stand_by: Whether one more worker per device stands by for one that dies.
        """
        self.on_change: Callable[[str], None] = lambda avatar_id: None
        self._limits = limits
        self._metrics = metrics
        self._is_standing_by = stand_by
        self._latest: AvatarEntry | None = None
        self._standbys = [StandBy(device.options, self._rehearse) for device in devices]
        self._workers: list[PoolWorker] = []
        for device, standby in zip(devices, self._standbys, strict=True):
            costs = FrameCosts()  # the workers of a device share what they learn
            for _ in range(device.count):
                worker = PoolWorker(device.options, standby, limits, metrics, costs, self._changed)
                self._workers.append(worker)
        self.admission = Admission(self._workers, metrics, utilization_limit)
        metrics.utilization.set_function(
            lambda: sum(worker.utilization for worker in self._workers) / len(self._workers)
        )
        metrics.worker_memory.set_function(lambda: self.memory_bytes)
        metrics.standby_workers.set_function(
            lambda: sum(standby.is_ready for standby in self._standbys)
        )
        metrics.loaded_avatars.set_function(
            lambda: sum(len(worker.shelf) for worker in self._workers)
        )
        metrics.engine_bytes.set_function(
            lambda: sum(worker.shelf.total_bytes for worker in self._workers)
        )

    @property
    def memory_bytes(self) -> int:
        """Memory of all workers, those that stand by included."""
        serving = sum(worker.supervisor.memory_bytes for worker in self._workers)
        return serving + sum(standby.memory_bytes for standby in self._standbys)

    @property
    def waiting_count(self) -> int:
        """Frames that wait for a worker to have room for them."""
        return sum(worker.supervisor.waiting_count for worker in self._workers)

    async def start(self) -> None:
        """Starts all workers; fails when one does not start."""
        await asyncio.gather(*(worker.supervisor.start() for worker in self._workers))
        if self._is_standing_by:
            for standby in self._standbys:
                standby.begin()

    async def stop(self) -> None:
        """Ends all workers."""
        await asyncio.gather(*(worker.supervisor.stop() for worker in self._workers))
        await asyncio.gather(*(standby.stop() for standby in self._standbys))

    @property
    def is_usable(self) -> bool:
        """Whether any worker is there now."""
        return any(worker.supervisor.is_ready for worker in self._workers)

    def is_loaded(self, entry: AvatarEntry) -> bool:
        """Whether any worker holds the avatar ready, as it is now."""
        return any(worker.holds(entry.key) for worker in self._workers)

    async def warm_up(self, entries: Sequence[AvatarEntry]) -> None:
        """Loads avatars everywhere, which measures what their frames cost; a bad one is skipped."""
        for entry in entries:
            loads = (worker.ready_process(entry) for worker in self._workers)
            for result in await asyncio.gather(*loads, return_exceptions=True):
                if isinstance(result, BaseException):
                    reason = str(result)
                    logger.warning("an avatar could not be loaded", extra={"reason": reason})
                else:
                    self._latest = entry

    async def load(self, entry: AvatarEntry) -> None:
        """Has a worker hold an avatar ready before anybody streams it.

        Raises:
            StyleAvatarError: When the avatar cannot be loaded.
        """
        with Lane(self.admission.any_place(entry), entry).held() as lane:
            await lane.load()
        self._latest = entry

    @asynccontextmanager
    async def single_lane(self, entry: AvatarEntry) -> AsyncIterator[Lane]:
        """Gives a way to a worker for one frame, when it has time for it.

        Raises:
            OverloadedError: When as many as may wait do so.
            StyleAvatarError: When the avatar cannot be loaded.
        """
        worker = self.admission.single_place(entry)
        async with worker.singles.admitted():
            with Lane(worker, entry).held() as lane:
                await lane.load()
                frame_s = worker.costs.frame_s(entry) or 0.0
                async with worker.singles.turn(frame_s, worker.utilization):
                    yield lane

    @asynccontextmanager
    async def stream_lane(
        self, entry: AvatarEntry, frames_per_second: float, *, is_live: bool
    ) -> AsyncIterator[Lane]:
        """Places a stream where there is room, loads its avatar, and keeps both for the context.

        Args:
            entry: The avatar.
            frames_per_second: What is to be set aside.
            is_live: Whether its frames come as a camera takes them.

        Yields:
            The way to the worker.

        Raises:
            OverloadedError: When no worker could hold the rate of all its streams.
            StyleAvatarError: When the avatar cannot be loaded.
        """
        async with contextlib.AsyncExitStack() as stack:
            reservation = Reservation(entry, frames_per_second, is_live)
            lane, full, lost_count = None, list[PoolWorker](), 0
            while lane is None:
                full_count = len(full)
                try:
                    reserved = self._reserved(reservation, full)
                    lane = await stack.enter_async_context(reserved)
                except WorkerLostError:
                    lost_count += 1
                    if lost_count == OPENING_ATTEMPTS:
                        raise
                except OverloadedError:
                    if len(full) == full_count or len(full) == len(self._workers):
                        raise
            self._latest = entry
            yield lane

    @asynccontextmanager
    async def _reserved(
        self, reservation: Reservation, full: list[PoolWorker]
    ) -> AsyncIterator[Lane]:
        """Reserves time at one worker; one that cannot take the avatar now is added to ``full``."""
        entry, frames_per_second, _ = reservation
        worker = await self.admission.require_room(entry, frames_per_second, full)
        self._metrics.avatar_uses.labels("hit" if worker.holds(entry.key) else "miss").inc()
        try:
            lane = Lane(
                worker,
                entry,
                reservation,
                self.admission.find_refuge,
                self.admission.film_share,
            )
            with lane.held():
                try:
                    await lane.load()
                except OverloadedError:
                    full.append(worker)
                    raise
                self.admission.confirm(lane, frames_per_second)
                yield lane
        finally:
            self.admission.stream_left()

    async def forget(self, avatar_id: str) -> None:
        """Unloads an avatar everywhere, because it was deleted."""
        if self._latest is not None and self._latest.avatar_id == avatar_id:
            self._latest = None
        for worker in self._workers:
            await worker.forget(avatar_id)

    async def release(self, entry: AvatarEntry) -> bool:
        """Unloads a bundle that was replaced, but where it is streamed; whether it is nowhere."""
        if self._latest is not None and self._latest.key == entry.key:
            self._latest = None
        for worker in self._workers:
            if entry.key in worker.shelf and not worker.pinned[entry.key]:
                await worker.unload(entry.key)
        return not any(worker.has_or_loads(entry.key) for worker in self._workers)

    def _changed(self, avatar_id: str) -> None:
        self.on_change(avatar_id)

    async def _rehearse(self, worker: WorkerProcess) -> None:
        """Loads and lets go of an avatar: the next loads in a third of the time."""
        entry = self._latest
        if entry is not None:
            await load_engine(
                worker,
                entry,
                load_timeout_s=REHEARSAL_TIMEOUT_S,
                ping_timeout_s=PATIENCE_S,
            )
            await unload_engine(worker, entry.key)
