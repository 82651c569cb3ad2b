# SPDX-License-Identifier: Apache-2.0
"""Malformed frames and messages against the running tracking service, with the real tracker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
import psutil
import pytest
from styleavatar.v1 import tracking_service_pb2, tracking_service_pb2_grpc

from benchmarks.tracking_parts.malformed import (
    REENACT,
    answer_codes,
    huge_message,
    malformed_frames,
    malformed_reenactments,
    malformed_streams,
)
from styleavatar_core.data.video import read_frames
from tests.integration.service_process import ServiceProcess
from tests.integration.stream_helpers import EVERY, video_frame

if TYPE_CHECKING:
    from styleavatar_core.sample.clip import SampleClip

FRAME_COUNT, STREAM_COUNT, HONEST_COUNT = 120, 27, 40
CONFIG = tracking_service_pb2.TrackRequest(
    config=tracking_service_pb2.TrackConfig(frame_mode=EVERY)
)
Responses = list[tracking_service_pb2.TrackResponse]


@pytest.fixture(scope="module")
def pictures(sample_clip: SampleClip) -> list[np.ndarray]:
    return [frame for index, _, frame in read_frames(sample_clip.path) if index < HONEST_COUNT]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    process = ServiceProcess("tracking", Path(tmp_path_factory.mktemp("data")), worker_count=1)
    try:
        yield process.wait_until_serving()
    finally:
        assert process.stop() == 0
        assert "Traceback" not in process.log


def track(
    service: ServiceProcess, messages: Iterator[tracking_service_pb2.TrackRequest]
) -> Responses:
    stub = tracking_service_pb2_grpc.TrackingServiceStub(service.channel)
    return list(stub.Track(messages, timeout=120))


def honest(pictures: list[np.ndarray]) -> Iterator[tracking_service_pb2.TrackRequest]:
    yield CONFIG
    for index, picture in enumerate(pictures):
        yield tracking_service_pb2.TrackRequest(frame=video_frame(index, picture))


def hostile(
    picture: np.ndarray, count: int, seed: int
) -> Iterator[tracking_service_pb2.TrackRequest]:
    yield CONFIG
    for frame in malformed_frames(picture, count, seed):
        yield tracking_service_pb2.TrackRequest(frame=frame)


def resident_mb(service: ServiceProcess) -> float:
    family = [psutil.Process(service.process.pid), *service.workers()]
    return sum(process.memory_info().rss for process in family) / 2**20


def besiege(
    service: ServiceProcess, pictures: list[np.ndarray], seed: int
) -> tuple[Responses, list[tuple[grpc.StatusCode, str | None]], Responses]:
    """Sends what is malformed while another client tracks: both answers, and the streams' ends."""
    beside: Responses = []
    other = threading.Thread(target=lambda: beside.extend(track(service, honest(pictures))))
    other.start()
    answers = track(service, hostile(pictures[0], FRAME_COUNT, seed))
    codes = [answer_codes(service.channel, m) for m in malformed_streams(STREAM_COUNT, seed)]
    other.join()
    return answers, codes, beside


def test_every_malformed_message_is_answered_and_nobody_else_is_disturbed(
    service: ServiceProcess, pictures: list[np.ndarray]
) -> None:
    alone = track(service, honest(pictures))
    besiege(service, pictures, seed=1)  # so that all code has run, with as many streams at a time
    before_mb = resident_mb(service)
    workers = [worker.pid for worker in service.workers()]
    answers, codes, beside = besiege(service, pictures, seed=2)

    kinds = [answer.WhichOneof("response") for answer in answers[1:]]
    assert len(kinds) == FRAME_COUNT
    assert set(kinds) <= {"failure", "no_face", "face"}
    assert kinds.count("failure") > 0.6 * FRAME_COUNT
    for answer in answers[1:]:
        if answer.HasField("failure"):
            assert answer.failure.reason.isupper()
            assert answer.failure.message
    for code, reason in codes:
        assert code is grpc.StatusCode.INVALID_ARGUMENT, (code, reason)
        assert reason
    assert [a.face.parameters for a in beside] == [a.face.parameters for a in alone]
    assert all(answer.HasField("face") for answer in beside[1:])
    assert [worker.pid for worker in service.workers()] == workers
    assert resident_mb(service) < before_mb + 40


def test_malformed_streams_of_reenact_end_with_an_error_of_their_own(
    service: ServiceProcess,
) -> None:
    for messages in malformed_reenactments(8):
        code, reason = answer_codes(service.channel, messages, REENACT)
        assert code is grpc.StatusCode.INVALID_ARGUMENT, messages
        assert reason


def test_a_message_beyond_the_limit_is_refused_by_its_size(service: ServiceProcess) -> None:
    messages = [CONFIG.SerializeToString(), huge_message()]
    code, _ = answer_codes(service.channel, messages)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_face_model_that_is_not_here_is_told(service: ServiceProcess) -> None:
    config = tracking_service_pb2.TrackConfig(model_id="nobody")
    messages = [tracking_service_pb2.TrackRequest(config=config).SerializeToString()]
    assert answer_codes(service.channel, messages) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "FACE_MODEL_MISSING",
    )
