# SPDX-License-Identifier: Apache-2.0
"""One stream: retargets what the driver sends, has it rendered, stores the picture."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace

from styleavatar.v1 import image_pb2, rendering_service_pb2

from services.common.errors import describe_error
from services.common.face_messages import IMAGE_FORMAT_NAMES, duration_from_seconds
from services.common.image_codec import encode_image, resize_square
from services.common.metrics import RenderingMetrics
from services.rendering.convert import stage_durations
from services.rendering.pool.frames import RenderedPicture
from services.rendering.pool.pool import Lane
from styleavatar_core.avatar.reenactment import ParameterStatistics, Retargeter
from styleavatar_core.errors import EngineError, WorkerLostError
from styleavatar_core.types import ByteArray, FaceParameters

# A frame on which workers die this often is given up, lest it kill one after the other.
ATTEMPT_LIMIT = 3


@dataclass(frozen=True, slots=True)
class StreamItem:
    """One frame that is asked for.

    Attributes:
        frame_index: Echoed.
        capture_time_s: Echoed.
        parameters: The driver's face; None to hold the last one.
        set_neutral: Whether the driver's face before this one is declared neutral.
        arrival_s: ``time.perf_counter()`` of its arrival.
    """

    frame_index: int
    capture_time_s: float
    parameters: FaceParameters | None
    set_neutral: bool = False
    arrival_s: float = 0.0


def merge_items(older: StreamItem, newer: StreamItem) -> StreamItem:
    """Lets a newer frame take the place of an older one, keeping what was declared with it."""
    return replace(newer, set_neutral=newer.set_neutral or older.set_neutral)


class RenderSession:
    """State of one stream; one frame at a time."""

    def __init__(
        self,
        config: rendering_service_pb2.RenderConfig,
        lane: Lane,
        metrics: RenderingMetrics,
    ) -> None:
        """Starts a stream.

        Args:
            config: What was granted.
            lane: Way to the worker.
            metrics: Where times are counted.
        """
        self._config = config
        self._lane = lane
        self._metrics = metrics
        self._live = config.frame_mode == image_pb2.FRAME_MODE_LATEST_FRAME
        same_person = config.driver == rendering_service_pb2.DRIVER_SAME_PERSON
        self._retargeter = Retargeter(
            ParameterStatistics.from_dict(lane.entry.manifest.statistics),
            "same_person" if same_person else "other_person",
        )
        self._dropped = {"superseded": 0, "worker_lost": 0}
        self._last_answer_s: float | None = None

    async def answer(
        self, item: StreamItem, superseded_count: int = 0
    ) -> rendering_service_pb2.StreamFramesResponse | None:
        """Answers one frame.

        Args:
            item: The frame.
            superseded_count: Frames that gave way to it.

        Returns:
            A picture or a failure; None when the frame was dropped because its worker died and the
            stream is live.
        """
        self._drop("superseded", superseded_count)
        try:
            frame = await self._render(item)
        except WorkerLostError:
            if not self._live:
                raise
            self._drop("worker_lost", 1)
            return None
        except EngineError as error:
            answer = describe_error(error)
            return rendering_service_pb2.StreamFramesResponse(
                failure=image_pb2.FrameFailure(
                    frame_index=item.frame_index, reason=answer.reason, message=answer.message
                )
            )
        return rendering_service_pb2.StreamFramesResponse(frame=frame)

    async def _render(self, item: StreamItem) -> rendering_service_pb2.RenderedFrame:
        if item.set_neutral:
            self._retargeter.set_neutral()
        retargeted = self._retargeter.retarget(item.parameters)
        parameters = replace(retargeted.parameters, frame_index=item.frame_index)
        started = time.perf_counter()
        picture = await self._render_with_retries(parameters)
        rendered = time.perf_counter()
        image = await asyncio.to_thread(self._encode, picture.image)
        ended = time.perf_counter()
        inside_s = {name: value / 1e3 for name, value in picture.timings_ms.items()}
        stages_s = {
            "queue": max(0.0, rendered - started - sum(inside_s.values()))
            + started
            - item.arrival_s,
            **inside_s,
            "encoding": ended - rendered,
            "total": ended - item.arrival_s,
        }
        self._count(stages_s, ended)
        return rendering_service_pb2.RenderedFrame(
            frame_index=item.frame_index,
            capture_offset=duration_from_seconds(item.capture_time_s),
            image=image,
            synthetic=True,
            clamped=retargeted.clamped or picture.clamped,
            held=item.parameters is None,
            dropped=self._take_dropped(),
            stage_durations=stage_durations(stages_s),
        )

    async def _render_with_retries(self, parameters: FaceParameters) -> RenderedPicture:
        attempts = 1 if self._live else ATTEMPT_LIMIT
        for attempt in range(1, attempts + 1):
            try:
                return await self._lane.render(parameters)
            except WorkerLostError:
                if attempt == attempts:
                    raise
        raise AssertionError("unreachable")

    def _encode(self, image: ByteArray) -> image_pb2.Image:
        side_px = self._config.image_size_px
        data = encode_image(
            resize_square(image, side_px),
            IMAGE_FORMAT_NAMES[self._config.image_format],
            self._config.jpeg_quality,
        )
        return image_pb2.Image(
            format=self._config.image_format, width_px=side_px, height_px=side_px, data=data
        )

    def _drop(self, reason: str, count: int) -> None:
        self._dropped[reason] += count
        if count:
            self._metrics.dropped_frames.labels(reason).inc(count)

    def _take_dropped(self) -> image_pb2.DroppedFrames:
        dropped = image_pb2.DroppedFrames(
            superseded_count=self._dropped["superseded"],
            worker_lost_count=self._dropped["worker_lost"],
        )
        self._dropped = dict.fromkeys(self._dropped, 0)
        return dropped

    def _count(self, stages_s: dict[str, float], now_s: float) -> None:
        self._metrics.frames.inc()
        for stage, seconds in stages_s.items():
            self._metrics.frame_duration.labels(stage).observe(seconds)
        if self._last_answer_s is not None:
            self._metrics.frame_interval.observe(now_s - self._last_answer_s)
        self._last_answer_s = now_s
