# SPDX-License-Identifier: Apache-2.0
"""The running tracking service: what a stream costs, and what garbage does."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import grpc
import psutil
from styleavatar.v1 import image_pb2, tracking_service_pb2, tracking_service_pb2_grpc

from benchmarks.streaming_parts.service import RunningService, running_service
from benchmarks.tracking_parts.malformed import (
    EVERY,
    JPEG,
    answer_codes,
    malformed_frames,
    malformed_streams,
)
from services.common.image_codec import encode_image
from styleavatar_core.data.video import read_frames
from styleavatar_core.types import ByteArray

_FRAMES_PER_SECOND = 30
_WARM_UP_COUNT = 10
_STREAM_SHARE = 0.2  # of what is malformed, whole streams; the rest are frames of one

Request = tracking_service_pb2.TrackRequest
Responses = list[tracking_service_pb2.TrackResponse]


def service_figures(clip: Path, frame_count: int, malformed_count: int) -> dict[str, float | None]:
    """Runs the service with one worker and the frames of a clip, as JPEG."""
    pictures = [frame for _, _, frame in islice(read_frames(clip), frame_count)]
    with (
        tempfile.TemporaryDirectory() as folder,
        running_service("tracking", Path(folder), worker_count=1) as service,
    ):
        cost = _stream_cost_s(service, pictures)
        figures: dict[str, float | None] = {
            "streams_30fps_per_core": 1 / (_FRAMES_PER_SECOND * cost)
        }
        return figures | _besiege(service, pictures, malformed_count)


def _stream_cost_s(service: RunningService, pictures: list[ByteArray]) -> float:
    """Processor time of front and worker per frame: what others do at the time does not count."""
    _track(service, _honest(pictures[:_WARM_UP_COUNT]))
    before = _cpu_s(service)
    _track(service, _honest(pictures))
    return (_cpu_s(service) - before) / len(pictures)


def _besiege(
    service: RunningService, pictures: list[ByteArray], count: int
) -> dict[str, float | None]:
    """Sends malformed frames and streams beside an honest caller.

    Memory is compared after a warm-up, in which all code has run and two streams have been open at
    once, again and again: allocators fill their pools until then.
    """
    few = pictures[: max(_WARM_UP_COUNT, len(pictures) // 4)]
    alone = _track(service, _honest(few))
    cold_mb, workers = _resident_mb(service), {worker.pid for worker in service.workers()}
    _attack(service, pictures[0], count // 4)
    for _ in range(max(count // 100, 1)):
        with _beside(service, few[:_WARM_UP_COUNT]):
            _track(service, _honest(few[:_WARM_UP_COUNT]))
    warm_mb = _resident_mb(service)
    with _beside(service, few) as beside:
        answered = _attack(service, pictures[0], count)
    same = sum(a == b for a, b in zip(alone, beside, strict=False))
    lost = workers - {worker.pid for worker in service.workers()}
    return {
        "malformed.messages": float(count),
        "malformed.answered_percent": 100 * answered / count,
        "malformed.disturbed_frames": float(len(alone) - same),
        "malformed.workers_lost": float(len(lost)),
        "malformed.memory_warm_up_mb": warm_mb - cold_mb,
        "malformed.memory_growth_mb": _resident_mb(service) - warm_mb,
    }


@contextmanager
def _beside(service: RunningService, pictures: list[ByteArray]) -> Iterator[Responses]:
    """Tracks honest frames while the caller does something else; the answers are there after it."""
    answers: Responses = []
    other = threading.Thread(target=lambda: answers.extend(_track(service, _honest(pictures))))
    other.start()
    yield answers
    other.join()


def _attack(service: RunningService, picture: ByteArray, count: int) -> int:
    """Returns how many frames got an answer in-band and streams an error of their own."""
    stream_count = round(_STREAM_SHARE * count)
    hostile = [_CONFIG, *malformed_frames(picture, count - stream_count)]
    answered = len(_track(service, hostile)) - 1
    for messages in malformed_streams(stream_count):
        code, reason = answer_codes(service.channel, messages)
        answered += code is grpc.StatusCode.INVALID_ARGUMENT and bool(reason)
    return answered


_CONFIG = Request(config=tracking_service_pb2.TrackConfig(frame_mode=EVERY))


def _honest(pictures: list[ByteArray]) -> Iterator[Request]:
    yield _CONFIG
    for index, picture in enumerate(pictures):
        image = image_pb2.Image(format=JPEG, data=encode_image(picture, "jpeg"))
        yield Request(frame=image_pb2.VideoFrame(frame_index=index, image=image))


def _track(service: RunningService, requests: Iterable[Request]) -> Responses:
    stub = tracking_service_pb2_grpc.TrackingServiceStub(service.channel)
    return list(stub.Track(iter(requests), timeout=600))


def _family(service: RunningService) -> list[psutil.Process]:
    return [service.process, *service.workers()]


def _cpu_s(service: RunningService) -> float:
    times = [process.cpu_times() for process in _family(service)]
    return float(sum(time.user + time.system for time in times))


def _resident_mb(service: RunningService) -> float:
    return float(sum(process.memory_info().rss for process in _family(service)) / 1e6)
