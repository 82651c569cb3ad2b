# SPDX-License-Identifier: Apache-2.0
"""Several workers: avatars are placed where they are loaded, else where there is least to do."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from services.common.metrics import RenderingMetrics
from services.common.worker.parameters import parameters_to_body
from services.common.worker.process import WorkerOptions, WorkerProcess
from services.common.worker.supervisor import WorkerSupervisor
from services.rendering.catalog import AvatarEntry
from services.rendering.pool.frames import AVATAR_NOT_LOADED, RenderedPicture
from styleavatar_core.errors import RenderError
from styleavatar_core.types import FaceParameters


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
    """One worker's place: what is loaded there now, and which avatars its streams use."""

    def __init__(
        self, options: WorkerOptions, timeouts: PoolTimeouts, metrics: RenderingMetrics
    ) -> None:
        self.supervisor = WorkerSupervisor(options, metrics.worker_restarts.inc)
        self.pinned: Counter[str] = Counter()
        self._timeouts = timeouts
        self._metrics = metrics
        self._loaded_by: WorkerProcess | None = None
        self._loads: dict[tuple[str, str], asyncio.Task[None]] = {}

    def is_loaded(self, avatar_id: str) -> bool:
        """Whether the present worker holds the avatar ready."""
        return self.supervisor.is_ready and any(
            key[0] == avatar_id and load.done() and load.exception() is None
            for key, load in self._loads.items()
            if not load.cancelled()
        )

    @property
    def loaded_count(self) -> int:
        """Avatars held ready."""
        return sum(self.is_loaded(avatar_id) for avatar_id, _ in list(self._loads))

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
        body = {
            "avatar_id": entry.avatar_id,
            "path": str(entry.path),
            "pinned": [avatar_id for avatar_id, count in self.pinned.items() if count > 0],
        }
        answer = await worker.call("load", body, timeout_s=self._timeouts.load_s)
        self._metrics.avatar_load.observe(answer["load_s"])
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

    async def render(self, parameters: FaceParameters) -> RenderedPicture:
        """Renders one picture.

        Args:
            parameters: In the coordinates of the avatar's window.

        Returns:
            The picture.

        Raises:
            WorkerLostError: When the worker died on the way; another attempt goes to a new one.
            StyleAvatarError: What the worker reported.
        """
        try:
            return await self._render_once(parameters)
        except RenderError as error:
            if error.reason != AVATAR_NOT_LOADED:
                raise
            # Another stream's avatar took its place in the moment before this one was pinned.
            self._slot.forget_load(self.entry)
            return await self._render_once(parameters)

    async def _render_once(self, parameters: FaceParameters) -> RenderedPicture:
        worker = await self._slot.ready_worker(self.entry)

        async def render_into(slot: int) -> RenderedPicture:
            body = {
                "avatar_id": self.entry.avatar_id,
                "slot": slot,
                "parameters": parameters_to_body(parameters),
            }
            answer = await worker.call("render", body, timeout_s=self._timeouts.render_s)
            image = worker.arena.read_array(slot, tuple(answer["shape"]))
            return RenderedPicture(image, answer["clamped"], answer["timings_ms"])

        return await worker.with_slot(render_into)


class RenderPool:
    """All workers of this service."""

    def __init__(
        self,
        options: WorkerOptions,
        worker_count: int,
        timeouts: PoolTimeouts,
        metrics: RenderingMetrics,
    ) -> None:
        self.timeouts = timeouts
        self._slots = [PoolSlot(options, timeouts, metrics) for _ in range(worker_count)]

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

    @asynccontextmanager
    async def lane(self, entry: AvatarEntry) -> AsyncIterator[Lane]:
        """Places a stream and pins its avatar for as long as the context lasts."""
        slot = min(
            self._slots,
            key=lambda slot: (not slot.is_loaded(entry.avatar_id), slot.pinned.total()),
        )
        slot.pinned[entry.avatar_id] += 1
        try:
            yield Lane(slot, entry, self.timeouts)
        finally:
            slot.pinned[entry.avatar_id] -= 1

    async def forget(self, avatar_id: str) -> None:
        """Unloads an avatar everywhere, because it was deleted."""
        loaded = [slot for slot in self._slots if slot.is_loaded(avatar_id)]
        await asyncio.gather(*(slot.unload(avatar_id) for slot in loaded))
