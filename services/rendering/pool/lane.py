# SPDX-License-Identifier: Apache-2.0
"""One stream's way to the worker that its avatar lives in."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from services.common.worker.slots import SlotCall
from services.rendering.catalog import AvatarEntry
from services.rendering.pool.frames import AVATAR_NOT_LOADED, RenderedPicture
from services.rendering.pool.reservations import Reservation, Reservations
from services.rendering.pool.worker import PoolWorker
from styleavatar_core.errors import EngineUnavailableError, RenderError
from styleavatar_core.types import FaceParameters

# While its worker is being replaced a stream looks for another so often.
LOOK_AROUND_S = 0.2
# A stream that has been without a worker for so long is ended: another node may have one.
WITHOUT_WORKER_S = 10.0


@dataclass(slots=True)
class AskedFrame:
    """A frame that a lane was asked for.

    Attributes:
        parameters: In the coordinates of the avatar's window.
        with_mask: Whether the mask is wanted too.
        begin_s: ``time.perf_counter()`` before which it is not begun.
        give_up_s: ``time.perf_counter()`` after which it is not begun.
        worker: Where it was begun last.
        call: Its picture; None while it is not under way.
    """

    parameters: FaceParameters
    with_mask: bool
    begin_s: float
    give_up_s: float
    worker: PoolWorker | None = None
    call: SlotCall[RenderedPicture] | None = None

    def abandon(self) -> None:
        """Says that nobody waits for it any more."""
        if self.call is not None:
            self.call.abandon()


class Lane:
    """Knows the place, whatever process is there; moves while that process is being replaced."""

    def __init__(
        self,
        worker: PoolWorker,
        entry: AvatarEntry,
        reservation: Reservation | None = None,
        find_refuge: Callable[[Lane], PoolWorker | None] = lambda lane: None,
        film_share: Callable[[Reservations], float] = lambda live: 1.0,
    ) -> None:
        """Leads to a worker.

        Args:
            worker: Where the avatar is to live.
            entry: The avatar.
            reservation: What is set aside there, if anything.
            find_refuge: Finds a place to move to, if there is a better one than to wait here.
            film_share: Says what the live streams of a worker leave of its time.
        """
        self.worker = worker
        self.entry = entry
        self.reservation = reservation
        self._find_refuge = find_refuge
        self._film_share = film_share
        self._holding = contextlib.ExitStack()

    @contextlib.contextmanager
    def held(self) -> Iterator[Lane]:
        """Keeps the avatar at the place, and time for its frames, wherever the lane moves."""
        self._hold()
        try:
            yield self
        finally:
            self._holding.close()

    def _hold(self) -> None:
        self._holding.enter_context(self.worker.pin(self.entry.key))
        if self.reservation is not None:
            self.worker.reserved[self] = self.reservation
            self._holding.callback(self.worker.reserved.pop, self, None)

    async def _settle(self) -> None:
        """Returns when there is a worker here, or when the lane has moved to where there is one."""
        supervisor = self.worker.supervisor
        give_up_s = time.monotonic() + WITHOUT_WORKER_S
        while not supervisor.is_ready:
            if (refuge := self._find_refuge(self)) is not None:
                self._holding.close()
                self.worker = refuge
                self._hold()
                return
            if supervisor.is_given_up or time.monotonic() > give_up_s:
                raise no_worker()
            await supervisor.wait(LOOK_AROUND_S)

    @property
    def is_loaded(self) -> bool:
        """Whether the avatar is held at the place."""
        return self.entry.key in self.worker.shelf

    async def load(self) -> None:
        """Waits until the avatar is ready.

        Raises:
            OverloadedError: When too many others wait to be loaded.
            StyleAvatarError: When it cannot be loaded.
        """
        self.worker.require_load_room(self.entry.key)
        await self.worker.ready_process(self.entry)

    def turn_s(self) -> float:
        """Returns the ``time.perf_counter()`` before which the next frame is not to begin.

        Live streams come first: beside them the others of a worker share what they leave of its
        time. Without them nobody waits.
        """
        now_s = time.perf_counter()
        if self.reservation is None or self.reservation.is_live:
            return now_s
        live = self.worker.reserved.live()
        if not live:
            return now_s
        frame_s = self.worker.reserved.frame_s(self.entry)
        return self.worker.film_pace.take(now_s, frame_s / self._film_share(live))

    def ask(
        self,
        parameters: FaceParameters,
        *,
        with_mask: bool = False,
        begin_s: float = 0.0,
        give_up_s: float = math.inf,
    ) -> AskedFrame:
        """Has a picture begun, at once if it is time and worker and avatar are there.

        Args:
            parameters: In the coordinates of the avatar's window.
            with_mask: Whether the mask is wanted too.
            begin_s: ``time.perf_counter()`` before which it is not begun.
            give_up_s: ``time.perf_counter()`` after which a frame that still waits is not begun.

        Returns:
            What ``picture`` takes.
        """
        asked = AskedFrame(parameters, with_mask, begin_s, give_up_s)
        if begin_s <= time.perf_counter():
            self._begin(asked)
        return asked

    def _begin(self, asked: AskedFrame) -> bool:
        asked.worker = self.worker
        asked.call = self.worker.begin(
            self.entry, asked.parameters, with_mask=asked.with_mask, give_up_s=asked.give_up_s
        )
        return asked.call is not None

    async def picture(self, asked: AskedFrame) -> RenderedPicture:
        """Returns a picture; begins it if it is not under way.

        Raises:
            OverloadedError: When the frame had to wait too long, with the reason FRAME_LATE.
            WorkerLostError: When the worker died on the way; asked again it goes to a new one.
            EngineUnavailableError: When there is no worker, and none is to be expected soon.
            StyleAvatarError: What the worker reported.
        """
        if (wait_s := asked.begin_s - time.perf_counter()) > 0:
            await asyncio.sleep(wait_s)
        try:
            return await self._taken(asked)
        except RenderError as error:
            if error.reason != AVATAR_NOT_LOADED:
                raise
            # Another stream's avatar took its place in the moment before this one was pinned.
            return await self._taken(asked)

    async def _taken(self, asked: AskedFrame) -> RenderedPicture:
        while asked.call is None and not self._begin(asked):
            await self._settle()
            await self.worker.ready_process(self.entry)
        assert asked.worker is not None, "begun above"
        assert asked.call is not None, "begun above"
        try:
            return await asked.worker.take(self.entry, asked.call)
        finally:
            asked.call = None


def no_worker() -> EngineUnavailableError:
    """Returns the error of a stream that no worker can be found for."""
    return EngineUnavailableError(
        "This server has no worker for the stream; go on with a new one, which may reach another.",
        reason="NO_WORKER",
    )
