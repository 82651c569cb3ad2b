# SPDX-License-Identifier: Apache-2.0
"""What a caller is told of a frame, and what is counted of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from prometheus_client import CollectorRegistry
from styleavatar.v1 import image_pb2, rendering_service_pb2

from services.common.metrics import RenderingMetrics
from services.rendering.answering import COUNTED_TOGETHER, Answers
from services.rendering.encoding import Encoding
from services.rendering.output import PictureWriter
from services.rendering.pool.frames import RenderedPicture
from services.rendering.requests import StreamItem
from styleavatar_core.errors import RenderError

CONFIG = rendering_service_pb2.RenderConfig(
    image_format=image_pb2.IMAGE_FORMAT_RAW_RGB,
    image_size_px=16,
    crop=rendering_service_pb2.Region(side=1.0),
    background=rendering_service_pb2.BACKGROUND_ORIGINAL,
)
PICTURE = RenderedPicture(np.full((16, 16, 3), 7, np.uint8), {"network": 12.5})


def answers(
    registry: CollectorRegistry, is_going_away: Callable[[], bool] = lambda: False
) -> Answers:
    metrics = RenderingMetrics(registry)
    return Answers(PictureWriter(CONFIG), Encoding(metrics), metrics, is_going_away)


def answer(answering: Answers, index: int = 3) -> rendering_service_pb2.RenderedFrame:
    now_s = time.perf_counter()
    item = StreamItem(index, -1.25, None, arrival_s=now_s - 1)
    picture = replace(PICTURE, came_s=now_s)
    work = answering.picture(item, picture, is_clamped=True)
    return asyncio.run(work).frame


def test_an_answer_says_what_became_of_its_frame_and_of_those_before() -> None:
    registry = CollectorRegistry()
    answering = answers(registry, lambda: True)
    answering.drop("late", 2)
    answering.drop("superseded", 0)
    frame = answer(answering)
    assert (frame.frame_index, frame.clamped, frame.held) == (3, True, True)
    assert (frame.going_away, frame.synthetic) == (True, True)
    assert frame.capture_offset.ToMilliseconds() == -1250
    assert frame.image.data == bytes([7]) * (16 * 16 * 3)
    assert (frame.dropped.late_count, frame.dropped.superseded_count) == (2, 0)
    stages = frame.stage_durations
    assert stages.network.ToMicroseconds() == 12_500
    assert not stages.HasField("decoding")
    told_s = [part.ToNanoseconds() / 1e9 for part in (stages.queue, stages.encoding)]
    assert abs(sum(told_s) + 0.0125 - stages.total.ToNanoseconds() / 1e9) < 1e-6
    assert answer(answering).dropped.late_count == 0
    late = registry.get_sample_value(
        "styleavatar_rendering_dropped_frames_total", {"reason": "late"}
    )
    assert late == 2


def test_a_failure_says_when_its_frame_was_captured_and_what_was_dropped_before() -> None:
    answering = answers(CollectorRegistry())
    answering.drop("worker_lost", 3)
    failure = answering.failure(StreamItem(4, 2.5, None), RenderError("no")).failure
    assert (failure.frame_index, failure.message) == (4, "no")
    assert failure.capture_offset.ToMilliseconds() == 2500
    assert failure.dropped.worker_lost_count == 3
    assert answer(answering).dropped.worker_lost_count == 0  # told once


def test_answers_are_counted_together_and_the_rest_at_the_end() -> None:
    registry = CollectorRegistry()
    answering = answers(registry)

    def counted(name: str, **labels: str) -> float:
        return registry.get_sample_value(f"styleavatar_rendering_{name}", labels) or 0.0

    async def several(count: int) -> None:
        item = StreamItem(0, 0.0, None, arrival_s=time.perf_counter())
        for _ in range(count):
            await answering.picture(item, PICTURE, is_clamped=False)
            await asyncio.sleep(0)

    asyncio.run(several(COUNTED_TOGETHER + 1))
    assert counted("frames_total") == COUNTED_TOGETHER
    answering.count()
    assert counted("frames_total") == COUNTED_TOGETHER + 1
    assert counted("frame_interval_seconds_count") == COUNTED_TOGETHER
    assert counted("frame_duration_seconds_count", stage="network") == COUNTED_TOGETHER + 1
    answering.count()
    assert counted("frames_total") == COUNTED_TOGETHER + 1
