# SPDX-License-Identifier: Apache-2.0
"""The running tracking service: what a stream costs, and what garbage does."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

import grpc
import psutil
from styleavatar.v1 import (
    image_pb2,
    rendering_service_pb2,
    tracking_service_pb2,
    tracking_service_pb2_grpc,
)

from benchmarks.streaming_parts.service import RunningService, running_service
from benchmarks.tracking_parts.malformed import (
    EVERY,
    JPEG,
    REENACT,
    answer_codes,
    huge_message,
    malformed_frames,
    malformed_reenactments,
    malformed_streams,
)
from services.common.image_codec import encode_image
from styleavatar_core.data.video import read_frames
from styleavatar_core.types import ByteArray
from tests.fakes.tiny_bundle import write_tiny_bundle

_FRAMES_PER_SECOND = 30
_WARM_UP_COUNT = 10
# Of what is malformed: whole streams of each method, frames of a Reenact stream, messages beyond
# all limits; the rest are frames of a Track stream.
_STREAM_SHARES, _HUGE_SHARE = (0.1, 0.2), 0.005
_AVATAR = "bench"

Request = tracking_service_pb2.TrackRequest
Reenaction = tracking_service_pb2.ReenactRequest
Responses = list[tracking_service_pb2.TrackResponse]


def service_figures(clip: Path, frame_count: int, malformed_count: int) -> dict[str, float | None]:
    """Runs the service with one worker and the frames of a clip, as JPEG; rendering behind it."""
    pictures = [frame for _, _, frame in islice(read_frames(clip), frame_count)]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        data = Path(folder)
        write_tiny_bundle(data / "avatars" / _AVATAR)
        rendering = stack.enter_context(running_service("rendering", data, backend="torch"))
        service = stack.enter_context(
            running_service("tracking", data, worker_count=1, rendering_address=rendering.address)
        )
        figures: dict[str, float | None] = {
            "streams_30fps_per_core": 1 / (_FRAMES_PER_SECOND * _stream_cost_s(service, pictures))
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
    """Sends malformed frames and streams beside an honest caller, who goes on until they end.

    Memory is compared after a warm-up, in which all code has run and as many streams have been
    open at once: allocators fill their pools until then.
    """
    few = pictures[: max(_WARM_UP_COUNT, len(pictures) // 4)]
    alone = _track(service, _honest(few))
    cold_mb, workers = _resident_mb(service), {worker.pid for worker in service.workers()}
    with _beside(service, few):
        _attack(service, pictures[0], count // 2)
    warm_mb = _resident_mb(service)
    with _beside(service, few) as beside:
        answered = _attack(service, pictures[0], count)
    rounds = [list(answers) for answers in beside]
    same = sum(a == b for answers in rounds for a, b in zip(alone, answers, strict=False))
    lost = workers - {worker.pid for worker in service.workers()}
    return {
        "malformed.messages": float(count),
        "malformed.answered_percent": 100 * answered / count,
        "malformed.honest_frames": float((len(alone) - 1) * len(rounds)),
        "malformed.disturbed_frames": float(len(alone) * len(rounds) - same),
        "malformed.workers_lost": float(len(lost)),
        "malformed.memory_warm_up_mb": warm_mb - cold_mb,
        "malformed.memory_growth_mb": _resident_mb(service) - warm_mb,
    }


@contextmanager
def _beside(service: RunningService, pictures: list[ByteArray]) -> Iterator[list[Responses]]:
    """Tracks honest streams, one after the other, for as long as the caller does something else.

    The answers of each are there after it; the last stream goes on to its end.
    """
    streams: list[Responses] = []
    done = threading.Event()

    def go_on() -> None:
        while not done.is_set() or not streams:
            streams.append(_track(service, _honest(pictures)))

    other = threading.Thread(target=go_on)
    other.start()
    try:
        yield streams
    finally:
        done.set()
        other.join()


def _attack(service: RunningService, picture: ByteArray, count: int) -> int:
    """Returns how many frames got an answer in-band and streams an error of their own."""
    huge_count = max(round(_HUGE_SHARE * count), 1)
    stream_count, reenacted_count = (round(share * count) for share in _STREAM_SHARES)
    frame_count = count - huge_count - 2 * stream_count - reenacted_count
    frames = [Request(frame=frame) for frame in malformed_frames(picture, frame_count)]
    answered = len(_track(service, [_CONFIG, *frames])) - 1
    answered += _reenact(service, list(malformed_frames(picture, reenacted_count, seed=1)))
    ends = [answer_codes(service.channel, each) for each in malformed_streams(stream_count)]
    for messages in malformed_reenactments(stream_count):
        ends.append(answer_codes(service.channel, messages, REENACT))
    answered += sum(code is grpc.StatusCode.INVALID_ARGUMENT and bool(why) for code, why in ends)
    huge = [_CONFIG.SerializeToString(), huge_message()]
    for _ in range(huge_count):
        code, _ = answer_codes(service.channel, huge)
        answered += code is grpc.StatusCode.RESOURCE_EXHAUSTED
    return answered


def _reenact(service: RunningService, frames: list[image_pb2.VideoFrame]) -> int:
    """Returns how many of the frames were answered, by a picture or a failure."""
    rendering = rendering_service_pb2.RenderConfig(
        avatar_id=_AVATAR, frame_mode=EVERY, image_format=JPEG
    )
    config = tracking_service_pb2.ReenactConfig(rendering=rendering)
    requests = [Reenaction(config=config), *(Reenaction(frame=frame) for frame in frames)]
    stub = tracking_service_pb2_grpc.TrackingServiceStub(service.channel)
    return len(list(stub.Reenact(iter(requests), timeout=600))) - 1


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
