# SPDX-License-Identifier: Apache-2.0
"""Which worker a stream or a frame is given to, and who is refused because there is no room."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from services.common.metrics import RenderingMetrics
from services.common.opening import retry_delay_s
from services.rendering.catalog import AvatarEntry
from services.rendering.pool.lane import Lane
from services.rendering.pool.placement import choose_place, choose_refuge
from services.rendering.pool.reservations import Reservations
from services.rendering.pool.singles import LEAST_SHARE
from services.rendering.pool.worker import PoolWorker
from styleavatar_core.errors import OverloadedError

# A caller that ends one stream and opens another must not be refused for the one that it ended.
ADMISSION_WAIT_S = 0.03


class Admission:
    """Finds places, or refuses."""

    def __init__(
        self, workers: Sequence[PoolWorker], metrics: RenderingMetrics, utilization_limit: float
    ) -> None:
        """Looks after the places.

        Args:
            workers: All workers of the service.
            metrics: Where refusals and moves are counted.
            utilization_limit: Share of a worker's time that streams may reserve.
        """
        self._workers = workers
        self._metrics = metrics
        self._utilization_limit = utilization_limit
        self._stream_left = asyncio.Event()

    def any_place(self, entry: AvatarEntry) -> PoolWorker:
        """Returns the best worker for an avatar that reserves nothing."""
        worker = self._place(entry, None, self._workers)
        assert worker is not None, "any place will do"
        return worker

    def require_single_room(self) -> None:
        """Checks that a single frame would be taken.

        Raises:
            OverloadedError: When as many as may wait do so.
        """
        if not any(worker.singles.has_room for worker in self._workers):
            self._metrics.refused_frames.inc()
            raise OverloadedError(
                "Single frames have only the time that streams leave, and others wait already; "
                "try again later, or open a stream.",
                retry_delay_s=retry_delay_s(),
                reason="NO_CAPACITY",
            )

    def single_place(self, entry: AvatarEntry) -> PoolWorker:
        """Returns a worker for a single frame.

        Raises:
            OverloadedError: When as many as may wait do so.
        """
        self.require_single_room()
        worker = self._place(
            entry, None, [worker for worker in self._workers if worker.singles.has_room]
        )
        assert worker is not None, "any place with room will do"
        return worker

    async def require_room(
        self, entry: AvatarEntry, frames_per_second: float, full: Sequence[PoolWorker] = ()
    ) -> PoolWorker:
        """Returns a worker with room for a stream, in a moment if one is just leaving.

        Args:
            entry: The avatar.
            frames_per_second: What would be set aside.
            full: Workers that cannot take the avatar.

        Raises:
            OverloadedError: When no worker could hold the rate of all its streams.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ADMISSION_WAIT_S):
                others = [worker for worker in self._workers if worker not in full]
                while (worker := self._place(entry, frames_per_second, others)) is None:
                    self._stream_left.clear()
                    await self._stream_left.wait()
                return worker
        raise self._refusal()

    def confirm(self, lane: Lane, frames_per_second: float) -> None:
        """Checks a stream's room once its avatar is loaded: only now is its cost known.

        Raises:
            OverloadedError: When its worker could not hold the rate of all its streams.
        """
        place = lane.worker.as_place(lane.entry, frames_per_second, newcomer=lane)
        if not place.has_room(self._utilization_limit):
            raise self._refusal()

    def stream_left(self) -> None:
        """Says that a stream has given its room back."""
        self._stream_left.set()

    def film_share(self, live: Reservations) -> float:
        """Returns the share of a worker's time that its live streams leave to its others."""
        left = self._utilization_limit - live.utilization()
        return max(LEAST_SHARE, left)

    def find_refuge(self, lane: Lane) -> PoolWorker | None:
        """Returns a better place for a stream whose worker has died than to wait for the next."""
        frames_per_second = lane.reservation.frames_per_second if lane.reservation else 0.0
        chosen = choose_refuge(
            [worker.as_place(lane.entry, frames_per_second) for worker in self._workers],
            self._workers.index(lane.worker),
            self._utilization_limit,
            someone_stands_by=lane.worker.standby.is_ready
            and not lane.worker.supervisor.is_given_up,
        )
        if chosen is None:
            return None
        self._metrics.moved_streams.inc()
        return self._workers[chosen]

    def _place(
        self, entry: AvatarEntry, frames_per_second: float | None, workers: Sequence[PoolWorker]
    ) -> PoolWorker | None:
        places = [worker.as_place(entry, frames_per_second) for worker in workers]
        chosen = choose_place(places, self._utilization_limit)
        return None if chosen is None else workers[chosen]

    def _refusal(self) -> OverloadedError:
        self._metrics.refused_streams.labels("capacity").inc()
        return OverloadedError(
            f"Another stream would need more than {self._utilization_limit:.0%} of a worker's "
            "measured time, and those that are open keep their rate; try again later, or ask for "
            "fewer frames per second.",
            retry_delay_s=retry_delay_s(),
            reason="NO_CAPACITY",
        )
