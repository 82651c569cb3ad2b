# SPDX-License-Identifier: Apache-2.0
"""The front's side of the tracking workers: a stream lives in one of them, with its tracker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from styleavatar.v1 import image_pb2

from services.common.face_messages import IMAGE_FORMAT_NAMES, seconds_from_duration
from services.common.metrics import TrackingMetrics
from services.common.worker.options import WorkerOptions
from services.common.worker.parameters import identity_to_body, unpack_parameters
from services.common.worker.process import WorkerProcess
from services.common.worker.supervisor import WorkerSupervisor
from styleavatar_core.errors import InvalidInputError, StyleAvatarError, WorkerLostError
from styleavatar_core.types import FaceIdentity, FaceParameters

logger = logging.getLogger(__name__)

REPLACE_TIMEOUT_S = 60.0
OPEN_TIMEOUT_S = 60.0
STREAM_NOT_OPEN = "STREAM_NOT_OPEN"  # reason: the worker was replaced since

_FORMAT_NAMES = {**IMAGE_FORMAT_NAMES, image_pb2.IMAGE_FORMAT_H264: "h264"}


@dataclass(frozen=True, slots=True)
class TrackerOptions:
    """How a stream is tracked.

    Attributes:
        model_id: Face model to track with; the built-in one if empty.
        identity: The person, when known; of that model.
        filtered: Whether parameters are smoothed over time.
    """

    model_id: str = ""
    identity: FaceIdentity | None = None
    filtered: bool = True


@dataclass(frozen=True, slots=True)
class TrackedFrame:
    """What a worker found.

    Attributes:
        parameters: The face; None when there is none.
        timings_s: Time of the stages decoding and tracking.
    """

    parameters: FaceParameters | None
    timings_s: dict[str, float]


class TrackingLane:
    """One stream's tracker; made anew when its worker was replaced."""

    def __init__(
        self, supervisor: WorkerSupervisor, options: TrackerOptions, frame_timeout_s: float
    ) -> None:
        self._supervisor = supervisor
        self._options = options
        self._frame_timeout_s = frame_timeout_s
        self._stream_id = uuid.uuid4().hex
        self._asked: WorkerProcess | None = None  # it may yet open one for a caller who has gone
        self._opened_in: WorkerProcess | None = None

    async def open(self) -> WorkerProcess:
        """Makes the tracker, unless the present worker has it.

        Raises:
            WorkerLostError: When there is no worker in time.
            StyleAvatarError: When no tracker can be made.
        """
        worker = await self._supervisor.worker(REPLACE_TIMEOUT_S)
        if self._opened_in is not worker:
            identity = self._options.identity
            body = {
                "stream_id": self._stream_id,
                "model_id": self._options.model_id,
                "identity": identity_to_body(identity) if identity else None,
                "filtered": self._options.filtered,
            }
            self._asked = worker
            await worker.call("open", body, timeout_s=OPEN_TIMEOUT_S)
            self._opened_in = worker
        return worker

    async def close(self) -> None:
        """Ends the tracker, also one that is still being opened."""
        worker = self._asked
        if worker is not None and not worker.ended.is_set():
            with contextlib.suppress(StyleAvatarError):
                await worker.call("close", {"stream_id": self._stream_id}, timeout_s=OPEN_TIMEOUT_S)

    async def track(
        self, frame: image_pb2.VideoFrame, earlier: tuple[bytes, ...] = ()
    ) -> TrackedFrame:
        """Tracks one frame.

        Args:
            frame: The frame.
            earlier: H.264 access units to decode before its own.

        Raises:
            InvalidInputError: When the frame cannot be used.
            WorkerLostError: When the worker died on the way; another attempt goes to a new one.
        """
        image_format = _FORMAT_NAMES.get(frame.image.format)
        if image_format is None:
            raise InvalidInputError(
                "A frame does not say its image format: JPEG, PNG, RAW_RGB or H264.",
                reason="UNKNOWN_IMAGE_FORMAT",
            )
        worker = await self.open()

        parts = (*earlier, frame.image.data)

        def read(slot: int, answer: dict[str, Any]) -> TrackedFrame:
            parameters = None
            if (byte_count := answer["byte_count"]) > 0:
                found = worker.arena.read(slot, byte_count)
                parameters = unpack_parameters(answer["model_id"], found)
            return TrackedFrame(parameters, answer["timings_s"])

        return await worker.call_with_slot(
            "track",
            {
                "stream_id": self._stream_id,
                "byte_counts": [len(data) for data in parts],
                "image_format": image_format,
                "width_px": frame.image.width_px,
                "height_px": frame.image.height_px,
                "capture_time_s": seconds_from_duration(frame.capture_offset),
                "frame_index": frame.frame_index,
            },
            write=lambda slot: worker.arena.write(slot, b"".join(parts)),
            read=read,
            timeout_s=self._frame_timeout_s,
        )


class TrackingPool:
    """All workers of this service.

    A stream has a worker to itself, so that no two wait for one Python lock: one stands by from the
    start, more are started when streams come and end with them. Where there are as many as there
    may be, a new stream goes where the fewest are.
    """

    def __init__(
        self,
        options: WorkerOptions,
        worker_count: int,
        frame_timeout_s: float,
        metrics: TrackingMetrics,
    ) -> None:
        self._frame_timeout_s = frame_timeout_s
        self._worker_count = worker_count
        self._make = partial(WorkerSupervisor, options, metrics.worker_restarts.inc)
        self._stream_counts: dict[WorkerSupervisor, int] = {}
        self._starting: set[WorkerSupervisor] = set()
        self._ending: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Starts the first worker; fails when it does not start."""
        first = self._make()
        self._stream_counts[first] = 0
        await first.start()

    @property
    def is_usable(self) -> bool:
        """Whether any worker is there now."""
        return any(supervisor.is_ready for supervisor in self._stream_counts)

    async def stop(self) -> None:
        """Ends all workers."""
        present = [supervisor.stop() for supervisor in self._stream_counts]
        await asyncio.gather(*present, *self._ending)

    @contextlib.asynccontextmanager
    async def lane(self, options: TrackerOptions) -> AsyncIterator[TrackingLane]:
        """Opens a tracker for as long as the context lasts."""
        supervisor = await self._take()
        lane = TrackingLane(supervisor, options, self._frame_timeout_s)
        try:
            try:
                await lane.open()
            except WorkerLostError:  # it died just now: the next one will do
                await lane.open()
            yield lane
        finally:
            try:
                await lane.close()
            finally:
                self._give_back(supervisor)

    def _give_back(self, supervisor: WorkerSupervisor) -> None:
        """Ends the worker of a stream that has ended, unless it is the only one that is idle."""
        self._stream_counts[supervisor] -= 1
        idle = [each for each, count in self._stream_counts.items() if count == 0]
        if supervisor in idle and len(idle) > 1:
            del self._stream_counts[supervisor]
            ending = asyncio.create_task(supervisor.stop())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def _take(self) -> WorkerSupervisor:
        """Returns the place with the fewest streams, counting the new one, or makes another."""
        fewest = self._emptiest()
        if self._stream_counts[fewest] == 0 or len(self._stream_counts) >= self._worker_count:
            self._stream_counts[fewest] += 1
            return fewest
        added = self._make()
        self._stream_counts[added] = 1
        self._starting.add(added)
        try:
            await added.start()
        except BaseException as error:
            del self._stream_counts[added]
            await added.stop()
            if not isinstance(error, (StyleAvatarError, OSError)):  # the latter: no memory
                raise
            logger.warning("no further worker can be started", extra={"reason": str(error)})
            fewest = self._emptiest()
            self._stream_counts[fewest] += 1
            return fewest
        finally:
            self._starting.discard(added)
        return added

    def _emptiest(self) -> WorkerSupervisor:
        """Returns the place with the fewest streams; one that may not start is not shared."""
        started = self._stream_counts.keys() - self._starting
        return min(started, key=self._stream_counts.__getitem__)
