# SPDX-License-Identifier: Apache-2.0
"""One stream of frames: what waits, what is tracked, what was dropped."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from styleavatar.v1 import image_pb2, tracking_service_pb2

from services.common.errors import describe_error
from services.common.mailbox import FrameMailbox, closing_mailbox
from services.common.metrics import TrackingMetrics
from services.tracking.h264 import backlog
from services.tracking.pool import STREAM_NOT_OPEN, TrackedFrame, TrackingLane
from styleavatar_core.errors import (
    InvalidInputError,
    OverloadedError,
    RenderError,
    WorkerLostError,
)

# A frame on which workers die this often is given up, lest it kill one after the other.
ATTEMPT_LIMIT = 3

Request = tracking_service_pb2.TrackRequest | tracking_service_pb2.ReenactRequest


@dataclass(frozen=True, slots=True)
class FrameItem:
    """One frame that waits.

    Attributes:
        frame: The frame.
        set_neutral: Whether the driver's face before this one is declared neutral.
        arrival_s: ``time.perf_counter()`` of its arrival.
        earlier: Access units of superseded frames that its own builds on.
    """

    frame: image_pb2.VideoFrame
    set_neutral: bool
    arrival_s: float
    earlier: tuple[bytes, ...] = ()


def frame_mailbox(frame_mode: int) -> FrameMailbox[FrameItem]:
    """Makes the box that a granted frame mode asks for."""

    def merge(older: FrameItem, newer: FrameItem) -> FrameItem:
        set_neutral = newer.set_neutral or older.set_neutral
        earlier: tuple[bytes, ...] = ()
        if older.frame.image.format == newer.frame.image.format == image_pb2.IMAGE_FORMAT_H264:
            earlier = backlog(older.earlier, older.frame.image.data, newer.frame.image.data)
        return replace(newer, set_neutral=set_neutral, earlier=earlier)

    return FrameMailbox(
        latest_only=frame_mode == image_pb2.FRAME_MODE_LATEST_FRAME, merge=merge, capacity=2
    )


def granted_frame_mode(asked: image_pb2.FrameMode) -> image_pb2.FrameMode:
    """Fills in the default of the frame mode.

    Raises:
        InvalidInputError: When there is no such mode.
    """
    if asked not in image_pb2.FrameMode.values():
        raise InvalidInputError(f"There is no frame mode {asked}.")
    return asked or image_pb2.FRAME_MODE_LATEST_FRAME


async def read_frames(requests: AsyncIterator[Request], mailbox: FrameMailbox[FrameItem]) -> None:
    """Moves frames into the mailbox until the caller is done or sends something unusable."""
    set_neutral = False
    async with closing_mailbox(mailbox):
        async for request in requests:
            kind = request.WhichOneof("request")
            if kind == "set_neutral":
                set_neutral = True
                continue
            if kind != "frame":
                raise InvalidInputError(
                    "After the config only frames may follow.", reason="BAD_MESSAGE"
                )
            await mailbox.put(FrameItem(request.frame, set_neutral, time.perf_counter()))
            set_neutral = False


class TrackSession:
    """Tracks the frames of one stream, one at a time, and counts."""

    def __init__(self, lane: TrackingLane, frame_mode: int, metrics: TrackingMetrics) -> None:
        self._lane = lane
        self._live = frame_mode == image_pb2.FRAME_MODE_LATEST_FRAME
        self._metrics = metrics
        self._superseded_count = 0
        self._worker_lost_count = 0

    def drop_superseded(self, count: int) -> None:
        """Counts frames that gave way to newer ones."""
        self._superseded_count += count
        if count:
            self._metrics.dropped_frames.labels("superseded").inc(count)

    def take_dropped(self) -> image_pb2.DroppedFrames:
        """Returns what was dropped since the last call."""
        dropped = image_pb2.DroppedFrames(
            superseded_count=self._superseded_count, worker_lost_count=self._worker_lost_count
        )
        self._superseded_count = self._worker_lost_count = 0
        return dropped

    async def track(self, item: FrameItem) -> TrackedFrame | image_pb2.FrameFailure | None:
        """Tracks a frame.

        Returns:
            What was found, or why the frame could not be used; None when it was dropped because
            its worker died and the stream is live.

        Raises:
            WorkerLostError: When workers keep dying on the frame.
        """
        attempts = 1 if self._live else ATTEMPT_LIMIT
        for attempt in range(1, attempts + 1):
            try:
                tracked = await self._lane.track(item.frame, item.earlier)
            except WorkerLostError:
                if attempt == attempts and not self._live:
                    raise
            except (InvalidInputError, RenderError, OverloadedError) as error:
                if error.reason == STREAM_NOT_OPEN:
                    raise
                self._metrics.frames.labels("failure").inc()
                answer = describe_error(error)
                return image_pb2.FrameFailure(
                    frame_index=item.frame.frame_index,
                    reason=answer.reason,
                    message=answer.message,
                    capture_offset=item.frame.capture_offset,
                    dropped=self.take_dropped(),
                )
            else:
                self._count(tracked, item)
                return tracked
        self._worker_lost_count += 1
        self._metrics.dropped_frames.labels("worker_lost").inc()
        return None

    def _count(self, tracked: TrackedFrame, item: FrameItem) -> None:
        self._metrics.frames.labels("face" if tracked.parameters else "no_face").inc()
        stages = {**tracked.timings_s, "total": time.perf_counter() - item.arrival_s}
        for stage, seconds in stages.items():
            self._metrics.frame_duration.labels(stage).observe(seconds)
