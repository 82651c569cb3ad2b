# SPDX-License-Identifier: Apache-2.0
"""Several workers: avatars are placed where they are loaded, else where there is least to do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from services.common.metrics import RenderingMetrics
from services.common.worker.parameters import parameters_to_body
from services.common.worker.process import WorkerOptions, WorkerProcess
from services.common.worker.supervisor import WorkerSupervisor
from services.rendering.catalog import AvatarEntry
from services.rendering.pool.capacity import FrameCosts
from services.rendering.pool.frames import AVATAR_NOT_LOADED, FRAME_LATE, RenderedPicture
from styleavatar_core.avatar.reenactment import ParameterStatistics, Retargeter
from styleavatar_core.errors import OverloadedError, RenderError
from styleavatar_core.types import FaceParameters

logger = logging.getLogger(__name__)

# A caller that ends one stream and opens another must not be refused for the one that it ended.
ADMISSION_WAIT_S = 0.08


@dataclass(frozen=True, slots=True)
class PoolTimeouts:
    """How long the front waits for a worker.

    Attributes:
        replace_s: For a new worker after one died.
        load_s: For an avatar to load.
        render_s: For a picture; a worker that takes longer counts as hung.
    """

    replace_s: float = 60.0
    load_s: float = 120.0
    render_s: float = 20.0


class PoolSlot:
    """One worker's place: what is loaded there now, and which streams it serves.

    Attributes:
        supervisor: Keeps the worker alive.
        costs: What frames cost.
        pinned: Streams by avatar id.
        reserved: Stream -> avatar and frames per second that were set aside for it.
    """

    def __init__(
        self,
        options: WorkerOptions,
        timeouts: PoolTimeouts,
        metrics: RenderingMetrics,
        costs: FrameCosts,
    ) -> None:
        self.supervisor = WorkerSupervisor(options, metrics.worker_restarts.inc)
        self.costs = costs
        self.pinned: Counter[str] = Counter()
        self.reserved: dict[object, tuple[AvatarEntry, float]] = {}
        self._timeouts = timeouts
        self._metrics = metrics
        self._loaded_by: WorkerProcess | None = None
        self._loads: dict[tuple[str, str], asyncio.Task[None]] = {}

    def is_loaded(self, avatar_id: str) -> bool:
        """Whether the present worker holds the avatar ready."""
        return self.supervisor.is_ready and any(
            key[0] == avatar_id and load.done() and load.exception() is None
            for key, load in list(self._loads.items())
            if not load.cancelled()
        )

    @property
    def loaded_count(self) -> int:
        """Avatars held ready."""
        return sum(self.is_loaded(avatar_id) for avatar_id, _ in list(self._loads))

    @property
    def utilization(self) -> float:
        """Share of the worker's time that its streams need; those not measured yet need none."""
        return sum(
            frames_per_second * (self.costs.frame_s(entry) or 0.0)
            for entry, frames_per_second in list(self.reserved.values())
        )

    async def ready_worker(self, entry: AvatarEntry) -> WorkerProcess:
        """Returns the worker with the avatar loaded; all who ask share one load.

        Raises:
            WorkerLostError: When there is no worker in time, or it died while loading.
            StyleAvatarError: When the bundle cannot be loaded.
        """
        worker = await self.supervisor.worker(self._timeouts.replace_s)
        if self._loaded_by is not worker:
            self._loads.clear()
            self._loaded_by = worker
        key = (entry.avatar_id, entry.revision)
        load = self._loads.get(key)
        if load is None:
            for stale in [other for other in self._loads if other[0] == entry.avatar_id]:
                del self._loads[stale]
            load = self._loads[key] = asyncio.create_task(self._load(worker, entry))
        try:
            await asyncio.shield(load)
        except Exception:
            if self._loads.get(key) is load:
                del self._loads[key]
            raise
        return worker

    def forget_load(self, entry: AvatarEntry) -> None:
        """Makes the next who asks load the avatar again."""
        self._loads.pop((entry.avatar_id, entry.revision), None)

    async def unload(self, avatar_id: str) -> None:
        """Lets an avatar go."""
        for key in [key for key in self._loads if key[0] == avatar_id]:
            del self._loads[key]
        if self.supervisor.is_ready:
            worker = await self.supervisor.worker(self._timeouts.replace_s)
            await worker.call("unload", {"avatar_id": avatar_id}, timeout_s=self._timeouts.load_s)

    async def _load(self, worker: WorkerProcess, entry: AvatarEntry) -> None:
        statistics = ParameterStatistics.from_dict(entry.manifest.statistics)
        at_rest = Retargeter(statistics).retarget(None).parameters
        body = {
            "avatar_id": entry.avatar_id,
            "path": str(entry.path),
            "parameters": parameters_to_body(at_rest),
            "pinned": [avatar_id for avatar_id, count in self.pinned.items() if count > 0],
        }
        answer = await worker.call("load", body, timeout_s=self._timeouts.load_s)
        self._metrics.avatar_load.observe(answer["load_s"])
        self._metrics.evicted_avatars.inc(len(answer["evicted"]))
        self.costs.calibrate(entry, answer["frame_s"])
        for key in [key for key in self._loads if key[0] in answer["evicted"]]:
            del self._loads[key]


class Lane:
    """One stream's way to the worker that its avatar lives in."""

    def __init__(self, slot: PoolSlot, entry: AvatarEntry, timeouts: PoolTimeouts) -> None:
        self.entry = entry
        self._slot = slot
        self._timeouts = timeouts

    async def load(self) -> None:
        """Waits until the avatar is ready."""
        await self._slot.ready_worker(self.entry)

    async def render(
        self,
        parameters: FaceParameters,
        *,
        with_mask: bool = False,
        give_up_s: float = math.inf,
    ) -> RenderedPicture:
        """Renders one picture.

        Args:
            parameters: In the coordinates of the avatar's window.
            with_mask: Whether the mask is wanted too.
            give_up_s: ``time.perf_counter()`` after which a frame that still waits is not begun.

        Returns:
            The picture.

        Raises:
            OverloadedError: When the frame had to wait too long, with the reason FRAME_LATE.
            WorkerLostError: When the worker died on the way; another attempt goes to a new one.
            StyleAvatarError: What the worker reported.
        """
        try:
            return await self._render_once(parameters, with_mask, give_up_s)
        except RenderError as error:
            if error.reason != AVATAR_NOT_LOADED:
                raise
            # Another stream's avatar took its place in the moment before this one was pinned.
            self._slot.forget_load(self.entry)
            return await self._render_once(parameters, with_mask, give_up_s)

    async def _render_once(
        self, parameters: FaceParameters, with_mask: bool, give_up_s: float
    ) -> RenderedPicture:
        worker = await self._slot.ready_worker(self.entry)

        async def render_into(slot: int) -> RenderedPicture:
            if time.perf_counter() > give_up_s:
                raise OverloadedError("The frame waited too long.", reason=FRAME_LATE)
            body = {
                "avatar_id": self.entry.avatar_id,
                "slot": slot,
                "with_mask": with_mask,
                "parameters": parameters_to_body(parameters),
            }
            answer = await worker.call("render", body, timeout_s=self._timeouts.render_s)
            self._slot.costs.observe(self.entry, sum(answer["timings_ms"].values()) / 1e3)
            image = worker.arena.read_array(slot, tuple(answer["shape"]))
            mask = None
            if with_mask:
                mask = worker.arena.read_array(slot, image.shape[:2], image.size)
            return RenderedPicture(image, answer["clamped"], answer["timings_ms"], mask)

        return await worker.with_slot(render_into)


class RenderPool:
    """All workers of this service."""

    def __init__(
        self,
        options: WorkerOptions,
        worker_count: int,
        timeouts: PoolTimeouts,
        metrics: RenderingMetrics,
        utilization_limit: float = 1.0,
    ) -> None:
        """Prepares the workers.

        Args:
            options: How to start one.
            worker_count: How many.
            timeouts: How long to wait for one.
            metrics: Where loads and restarts are counted.
            utilization_limit: Share of a worker's time that streams may reserve.
        """
        self.timeouts = timeouts
        self._utilization_limit = utilization_limit
        self._stream_left = asyncio.Event()
        self._metrics = metrics
        self._costs = FrameCosts()
        self._slots = [
            PoolSlot(options, timeouts, metrics, self._costs) for _ in range(worker_count)
        ]
        metrics.utilization.set_function(
            lambda: sum(slot.utilization for slot in self._slots) / worker_count
        )
        metrics.worker_memory.set_function(
            lambda: sum(slot.supervisor.memory_bytes for slot in self._slots)
        )
        metrics.loaded_avatars.set_function(lambda: self.loaded_count)

    @property
    def loaded_count(self) -> int:
        """Avatars held ready, over all workers."""
        return sum(slot.loaded_count for slot in self._slots)

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that are ready."""
        return [slot.supervisor.pid for slot in self._slots if slot.supervisor.is_ready]

    async def start(self) -> None:
        """Starts all workers; fails when one does not start."""
        await asyncio.gather(*(slot.supervisor.start() for slot in self._slots))

    async def stop(self) -> None:
        """Ends all workers."""
        await asyncio.gather(*(slot.supervisor.stop() for slot in self._slots))

    def is_loaded(self, avatar_id: str) -> bool:
        """Whether any worker holds the avatar ready."""
        return any(slot.is_loaded(avatar_id) for slot in self._slots)

    async def warm_up(self, entries: Sequence[AvatarEntry]) -> None:
        """Loads avatars everywhere, which measures what their frames cost; a bad one is skipped."""
        for entry in entries:
            loads = (slot.ready_worker(entry) for slot in self._slots)
            for result in await asyncio.gather(*loads, return_exceptions=True):
                if isinstance(result, BaseException):
                    reason = str(result)
                    logger.warning("an avatar could not be loaded", extra={"reason": reason})

    @asynccontextmanager
    async def lane(self, entry: AvatarEntry) -> AsyncIterator[Lane]:
        """Gives a way to a worker for single frames; nothing is set aside for them."""
        slot = min(self._slots, key=lambda slot: self._preference(slot, entry))
        with _pinned(slot, entry.avatar_id):
            yield Lane(slot, entry, self.timeouts)

    @asynccontextmanager
    async def stream_lane(
        self, entry: AvatarEntry, frames_per_second: float
    ) -> AsyncIterator[Lane]:
        """Places a stream where there is room, loads its avatar, and keeps both for the context.

        Args:
            entry: The avatar.
            frames_per_second: What is to be set aside.

        Yields:
            The way to the worker.

        Raises:
            OverloadedError: When no worker could hold the rate of all its streams.
            StyleAvatarError: When the avatar cannot be loaded.
        """
        roomy = await self._find_room(entry, frames_per_second)
        if not roomy:
            self._metrics.refused_streams.labels("capacity").inc()
            raise _overloaded(self._utilization_limit)
        slot = min(roomy, key=lambda slot: self._preference(slot, entry))
        cache = "hit" if slot.is_loaded(entry.avatar_id) else "miss"
        self._metrics.avatar_uses.labels(cache).inc()
        stream = object()
        with _pinned(slot, entry.avatar_id):
            slot.reserved[stream] = (entry, frames_per_second)
            try:
                await slot.ready_worker(entry)
                # Only now is it known what a frame of an avatar of a new preset costs.
                del slot.reserved[stream]
                if not self._has_room(slot, frames_per_second * (self._costs.frame_s(entry) or 0)):
                    raise _overloaded(self._utilization_limit)
                slot.reserved[stream] = (entry, frames_per_second)
                yield Lane(slot, entry, self.timeouts)
            finally:
                slot.reserved.pop(stream, None)
                self._stream_left.set()

    async def _find_room(self, entry: AvatarEntry, frames_per_second: float) -> list[PoolSlot]:
        """Returns the workers with room for a stream, in a moment if one is just leaving."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ADMISSION_WAIT_S):
                while True:
                    needed = frames_per_second * (self._costs.frame_s(entry) or 0.0)
                    roomy = [slot for slot in self._slots if self._has_room(slot, needed)]
                    if roomy:
                        return roomy
                    self._stream_left.clear()
                    await self._stream_left.wait()
        return []

    def _has_room(self, slot: PoolSlot, needed: float) -> bool:
        """A worker without streams takes any one, at whatever rate it can hold."""
        return not slot.reserved or slot.utilization + needed <= self._utilization_limit

    def _preference(self, slot: PoolSlot, entry: AvatarEntry) -> tuple[bool, float, int]:
        return not slot.is_loaded(entry.avatar_id), slot.utilization, slot.pinned.total()

    async def forget(self, avatar_id: str) -> None:
        """Unloads an avatar everywhere, because it was deleted."""
        loaded = [slot for slot in self._slots if slot.is_loaded(avatar_id)]
        await asyncio.gather(*(slot.unload(avatar_id) for slot in loaded))


@contextmanager
def _pinned(slot: PoolSlot, avatar_id: str) -> Iterator[None]:
    slot.pinned[avatar_id] += 1
    try:
        yield
    finally:
        slot.pinned[avatar_id] -= 1


def _overloaded(limit: float) -> OverloadedError:
    return OverloadedError(
        f"Another stream would need more than {limit:.0%} of a worker's measured time, and those "
        "that are open keep their rate; try again later, or ask for fewer frames per second.",
        retry_delay_s=2.0,
        reason="NO_CAPACITY",
    )
