# SPDX-License-Identifier: Apache-2.0
"""What one stream is told of its frames, with a lane that refuses or loses them."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry
from styleavatar.v1 import image_pb2

from services.common.metrics import TrackingMetrics
from services.tracking.pool import TrackedFrame
from services.tracking.session import FrameItem, TrackSession
from styleavatar_core.errors import InvalidInputError, WorkerLostError
from tests.integration.stream_helpers import LATEST, picture, video_frame


class Lane:
    """Loses the worker with the first frame, and takes no other."""

    def __init__(self) -> None:
        self._is_lost = False

    async def track(
        self, frame: image_pb2.VideoFrame, earlier: tuple[bytes, ...] = ()
    ) -> TrackedFrame:
        if not self._is_lost:
            self._is_lost = True
            raise WorkerLostError("The worker died.")
        raise InvalidInputError("The frame is none.")


def test_a_frame_that_cannot_be_used_tells_when_it_was_and_what_was_dropped_before_it() -> None:
    session = TrackSession(Lane(), LATEST, TrackingMetrics(CollectorRegistry()))
    lost, unusable = (FrameItem(video_frame(i, picture(9)), False, 0.0) for i in (5, 8))

    async def track() -> image_pb2.FrameFailure:
        assert await session.track(lost) is None
        session.drop_superseded(2)
        return await session.track(unusable)

    failure = asyncio.run(track())
    assert failure.capture_offset.ToMilliseconds() == 320
    assert (failure.dropped.superseded_count, failure.dropped.worker_lost_count) == (2, 1)
    assert session.take_dropped() == image_pb2.DroppedFrames()
