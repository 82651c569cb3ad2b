# SPDX-License-Identifier: Apache-2.0
"""One worker of the pool: what is loaded there now, and which streams it serves."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from services.common.metrics import RenderingMetrics
from services.common.worker.options import WorkerOptions
from services.common.worker.process import WorkerProcess
from services.common.worker.slots import SlotCall
from services.common.worker.standby import StandBy
from services.common.worker.supervisor import WorkerSupervisor
from services.rendering.catalog import AvatarEntry
from services.rendering.pool.calls import PATIENCE_S, load_engine, render_frame, unload_engine
from services.rendering.pool.capacity import FrameCosts
from services.rendering.pool.frames import AVATAR_NOT_LOADED, RenderedPicture
from services.rendering.pool.limits import HUNG_FRAMES, PoolLimits
from services.rendering.pool.loads import EngineLoads
from services.rendering.pool.pace import Pace
from services.rendering.pool.placement import Place
from services.rendering.pool.reservations import Reservations
from services.rendering.pool.shelf import EngineKey, EngineShelf
from services.rendering.pool.singles import SingleFrames
from styleavatar_core.errors import (
    NotFoundError,
    RenderError,
    StyleAvatarError,
    WorkerLostError,
)
from styleavatar_core.types import FaceParameters


class PoolWorker:
    """A worker, whatever process it is at present.

    Attributes:
        supervisor: Keeps the worker alive.
        standby: Has a process for it when it dies.
        costs: What frames cost on its device.
        shelf: The engines that the present process holds.
        pinned: Streams by engine.
        reserved: What was set aside for each stream.
        film_pace: When frames begin of streams that are not live.
        singles: Frames that belong to no stream.
    """

    def __init__(
        self,
        options: WorkerOptions,
        standby: StandBy,
        limits: PoolLimits,
        metrics: RenderingMetrics,
        costs: FrameCosts,
        on_change: Callable[[str], None],
    ) -> None:
        """Prepares the worker.

        Args:
            options: How to start a process.
            standby: Starts them.
            limits: What it is allowed.
            metrics: Where loads and restarts are counted.
            costs: What frames cost, shared by all places of a device.
            on_change: Gets the id of an avatar that came or went.
        """
        self.supervisor = WorkerSupervisor(options, self._on_restart, standby)
        self.standby = standby
        self.costs = costs
        self.shelf = EngineShelf(limits.engine_bytes)
        self.pinned: Counter[EngineKey] = Counter()
        self.reserved = Reservations(costs)
        self.film_pace = Pace()
        self.singles = SingleFrames()
        self._limits = limits
        self._metrics = metrics
        self._on_change = on_change
        self._loads = EngineLoads(self._load)
        self._least_bytes: dict[str, int] = {}  # by preset

    def holds(self, key: EngineKey) -> bool:
        """Whether the present process has an engine ready."""
        return self.supervisor.is_ready and key in self.shelf

    def has_or_loads(self, key: EngineKey) -> bool:
        """Whether the present process has an engine, or will have it when its load is done."""
        return key in self.shelf or key in self._loads

    @property
    def utilization(self) -> float:
        """Share of the worker's time that its streams need; those not measured yet need none."""
        return self.reserved.utilization()

    def as_place(
        self,
        entry: AvatarEntry,
        frames_per_second: float | None = None,
        newcomer: object = None,
    ) -> Place:
        """Describes this place to an avatar that looks for one.

        Args:
            entry: The avatar.
            frames_per_second: What is to be set aside for it, if anything.
            newcomer: Its stream, which does not count though it is here already.
        """
        others = self.reserved.without(newcomer)
        return Place(
            is_ready=self.supervisor.is_ready,
            holds_avatar=entry.key in self.shelf,
            utilization=others.utilization(),
            stream_count=len(others),
            pinned_count=self.pinned.total(),
            is_loading=entry.key in self._loads,
            engine_bytes=self.shelf.total_bytes,
            needed=None if frames_per_second is None else frames_per_second * others.frame_s(entry),
        )

    @contextlib.contextmanager
    def pin(self, key: EngineKey) -> Iterator[None]:
        """Keeps an engine from leaving for others."""
        self.pinned[key] += 1
        try:
            yield
        finally:
            self.pinned[key] -= 1
            self.pinned += Counter()  # drops those that nobody pins

    def require_load_room(self, key: EngineKey) -> None:
        """Lets a newcomer load an avatar that is here or comes already, or one more.

        Raises:
            OverloadedError: When too many wait to be loaded.
        """
        if key not in self.shelf and key not in self._loads:
            self._loads.require_room()

    async def ready_process(self, entry: AvatarEntry) -> WorkerProcess:
        """Returns the process with the avatar loaded; all who ask share one load.

        Raises:
            WorkerLostError: When there is no worker in time, or it died while loading.
            StyleAvatarError: When the bundle cannot be loaded.
        """
        worker = await self.supervisor.worker(self._limits.replace_s)
        if entry.key in self.shelf:
            self.shelf.touch(entry.key)
            return worker
        return await self._loads.join(entry)

    @property
    def _usual_s(self) -> float:
        """How long a frame may take that no load is in the way of."""
        return max(self._limits.render_s, HUNG_FRAMES * self.costs.longest_s)

    @property
    def _patience_s(self) -> float:
        return max(self._usual_s, PATIENCE_S) if self._loads else self._usual_s

    def begin(
        self,
        entry: AvatarEntry,
        parameters: FaceParameters,
        *,
        with_mask: bool = False,
        give_up_s: float = math.inf,
    ) -> SlotCall[RenderedPicture] | None:
        """Begins a picture, see ``render_frame``; None when worker or avatar are not here now."""
        worker = self.supervisor.present
        if worker is None or entry.key not in self.shelf:
            return None
        self.shelf.touch(entry.key)
        return render_frame(
            worker,
            entry.key,
            parameters,
            with_mask=with_mask,
            give_up_s=give_up_s,
            timeout_s=self._patience_s,
        )

    async def take(self, entry: AvatarEntry, call: SlotCall[RenderedPicture]) -> RenderedPicture:
        """Waits for a picture that was begun here, and learns from it."""
        try:
            picture = await call
        except RenderError as error:
            if error.reason == AVATAR_NOT_LOADED:
                self._forget(entry.key)
            raise
        self.costs.observe(entry, picture.busy_s)
        return picture

    async def forget(self, avatar_id: str) -> None:
        """Lets an avatar go that was deleted, also one that is being loaded."""
        self._loads.mark_deleted(avatar_id)
        await self.unload(*(key for key in self.shelf if key[0] == avatar_id))

    async def unload(self, *keys: EngineKey) -> None:
        """Lets engines go; those of a worker that dies meanwhile are gone as well."""
        for key in keys:
            self._forget(key)
            if self.supervisor.is_ready:
                worker = await self.supervisor.worker(self._limits.replace_s)
                with contextlib.suppress(WorkerLostError):
                    await unload_engine(worker, key)

    async def _load(self, entry: AvatarEntry) -> WorkerProcess:
        limits = self._limits
        async with self._loads.turn:
            worker = await self.supervisor.worker(limits.replace_s)
            await self._evict(self.shelf.making_room(self._bytes_at_least(entry), self.pinned))
            try:
                engine = await load_engine(
                    worker, entry, load_timeout_s=limits.load_s, ping_timeout_s=self._usual_s
                )
            except StyleAvatarError:
                self._metrics.failed_loads.inc()
                raise
        if self._loads.is_deleted(entry.key):
            await unload_engine(worker, entry.key)
            raise NotFoundError(f"'{entry.avatar_id}' was deleted.", reason="AVATAR_NOT_FOUND")
        self._metrics.avatar_load.observe(engine.load_s)
        self._least_bytes[entry.manifest.preset] = min(
            self._bytes_at_least(entry) or engine.size_bytes, engine.size_bytes
        )
        self.costs.calibrate(entry, engine.frame_s)
        self.shelf.put(entry.key, engine.size_bytes)
        try:
            leaving = self.shelf.leaving(entry.key, self.pinned)
        except StyleAvatarError:
            await self.unload(entry.key)
            raise
        await self._evict(leaving)
        self._on_change(entry.avatar_id)
        return worker

    def _bytes_at_least(self, entry: AvatarEntry) -> int:
        """Returns what the smallest avatar of the preset took here; 0 when there was none."""
        return self._least_bytes.get(entry.manifest.preset, 0)

    async def _evict(self, leaving: Sequence[EngineKey]) -> None:
        for key in leaving:
            if not self.pinned[key]:  # while the one before it left, a stream may have come for it
                self._metrics.evicted_avatars.inc()
                await self.unload(key)

    def _forget(self, key: EngineKey) -> None:
        self.shelf.discard(key)
        self._on_change(key[0])

    def _on_restart(self) -> None:
        self._metrics.worker_restarts.inc()
        for key in self.shelf:
            self._forget(key)
