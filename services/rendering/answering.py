# SPDX-License-Identifier: Apache-2.0
"""What one stream's caller is told of its frames, and what is counted of them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from styleavatar.v1 import image_pb2, rendering_service_pb2

from services.common.errors import describe_error
from services.common.face_messages import set_duration
from services.common.metrics import RenderingMetrics
from services.rendering.encoding import Encoding
from services.rendering.output import PictureWriter
from services.rendering.pool.frames import RenderedPicture
from services.rendering.requests import StreamItem
from styleavatar_core.errors import StyleAvatarError

Response = rendering_service_pb2.StreamFramesResponse

# Answers are counted so many at once: what the first of them loads into the caches serves all.
COUNTED_TOGETHER = 8


@dataclass(frozen=True, slots=True)
class _Told:
    """What is to be counted of an answer: seconds of each stage, frames in its batch, its time."""

    stages_s: dict[str, float]
    batch_size: int
    told_s: float


class Answers:
    """Writes the answers of one stream, in order.

    Attributes:
        error: Why a frame failed, the last one that did.
    """

    def __init__(
        self,
        writer: PictureWriter,
        encoding: Encoding,
        metrics: RenderingMetrics,
        is_going_away: Callable[[], bool] = lambda: False,
    ) -> None:
        """Starts with nothing to tell.

        Args:
            writer: Stores the pictures.
            encoding: Where those are stored that take long.
            metrics: Where times and drops are counted.
            is_going_away: Says whether this server is about to stop.
        """
        self.error: StyleAvatarError | None = None
        self._writer = writer
        self._encoding = encoding
        self._metrics = metrics
        self._is_going_away = is_going_away
        self._dropped: Counter[str] = Counter()
        self._told: list[_Told] = []
        self._last_told_s: float | None = None

    def drop(self, reason: str, count: int) -> None:
        """Notes frames that get no answer; the next answer tells of them."""
        if count:
            self._dropped[reason] += count
            self._metrics.dropped_frames.labels(reason).inc(count)

    def failure(self, item: StreamItem, error: StyleAvatarError) -> Response:
        """Returns the answer to a frame that could not be rendered."""
        self.error = error
        answer = describe_error(error)
        failure = image_pb2.FrameFailure(
            frame_index=item.frame_index, reason=answer.reason, message=answer.message
        )
        set_duration(failure.capture_offset, item.capture_time_s)
        self._tell_dropped(failure.dropped)
        return Response(failure=failure)

    def _tell_dropped(self, dropped: image_pb2.DroppedFrames) -> None:
        dropped.SetInParent()
        for reason, count in self._dropped.items():
            setattr(dropped, f"{reason}_count", count)
        self._dropped.clear()

    async def picture(
        self, item: StreamItem, picture: RenderedPicture, *, is_clamped: bool
    ) -> Response:
        """Stores a picture.

        Args:
            item: The frame that was asked for.
            picture: What the worker made of it.
            is_clamped: Whether retargeting moved its parameters into the trained range.

        Returns:
            The answer.
        """
        response = Response()
        frame = response.frame  # filled in place: a message given to another would be copied
        frame.frame_index = item.frame_index
        frame.synthetic = True
        frame.going_away = self._is_going_away()
        frame.clamped = is_clamped
        frame.held = item.parameters is None
        set_duration(frame.capture_offset, item.capture_time_s)
        if self._writer.is_quick(picture.image.shape[0]):
            frame.key_frame = self._writer.write(picture, frame.image)
        else:
            frame.key_frame = await self._encoding.run(self._writer.write, picture, frame.image)
        self._tell_dropped(frame.dropped)
        told_s = time.perf_counter()
        stages_s = _stages_s(item.arrival_s, picture, told_s)
        for stage, seconds in stages_s.items():
            set_duration(getattr(frame.stage_durations, stage), seconds)
        self._told.append(_Told(stages_s, picture.batch_size, told_s))
        if len(self._told) >= COUNTED_TOGETHER:
            # Nobody waits for the counting: the answer is handed to gRPC first.
            asyncio.get_running_loop().call_soon(self.count)
        return response

    def count(self) -> None:
        """Counts the answers that were told and not counted yet."""
        told, self._told = self._told, []
        for answer in told:
            self._metrics.frames.inc()
            self._metrics.batch_size.observe(answer.batch_size)
            for stage, seconds in answer.stages_s.items():
                self._metrics.frame_duration.labels(stage).observe(seconds)
            if self._last_told_s is not None:
                self._metrics.frame_interval.observe(answer.told_s - self._last_told_s)
            self._last_told_s = answer.told_s


def _stages_s(arrival_s: float, picture: RenderedPicture, told_s: float) -> dict[str, float]:
    """Says where the time of a frame went; the names are the fields of the message."""
    inside_s = {name: value / 1e3 for name, value in picture.timings_ms.items()}
    waited_s = picture.came_s - arrival_s - sum(inside_s.values())
    return {
        "queue": max(0.0, waited_s),
        **inside_s,
        "encoding": told_s - picture.came_s,
        "total": told_s - arrival_s,
    }
