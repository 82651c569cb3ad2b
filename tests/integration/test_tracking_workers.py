# SPDX-License-Identifier: Apache-2.0
"""Workers of the tracking service: one for each stream, and another when one dies."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from styleavatar.v1 import (
    image_pb2,
)

from services.tracking.settings import TrackingSettings
from tests.integration.marked_tracking import Stub, track_requests
from tests.integration.service_process import ServiceProcess
from tests.integration.stream_helpers import (
    picture,
    video_frame,
)

STATES = health_pb2.HealthCheckResponse


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    data, tracker = tmp_path_factory.mktemp("data"), "tests.fakes.tracker:open_fake_tracker"
    with ServiceProcess("tracking", data, tracker=tracker) as process:
        yield process.wait_until_serving()
        assert process.stop() == 0
        assert "Traceback" not in process.log


def counts_of_workers(service: ServiceProcess, stream_count: int) -> list[int]:
    """How many workers there are after each of some streams that are open at once."""
    stub, done, counts = Stub(service.channel), threading.Event(), []

    def frames(index: int) -> Iterator[image_pb2.VideoFrame]:
        yield video_frame(index, picture(150))
        done.wait(60)

    streams = []
    try:
        for index in range(stream_count):
            streams.append(stub.Track(track_requests(frames(index)), timeout=60))
            assert [next(streams[-1]).WhichOneof("response") for _ in range(2)][1] == "face"
            counts.append(len(service.workers()))
    finally:
        done.set()
    assert [len(list(stream)) for stream in streams] == [0] * stream_count
    return counts


def wait_until_one_worker_is_left(service: ServiceProcess) -> None:
    for _ in range(100):
        if len(service.workers()) == 1:
            return
        time.sleep(0.1)
    pytest.fail(f"{len(service.workers())} workers are left")


def test_each_stream_has_a_worker_of_its_own_that_ends_with_it(service: ServiceProcess) -> None:
    wait_until_one_worker_is_left(service)  # those of other tests may be about to end
    assert counts_of_workers(service, 6) == [1, 2, 3, 4, 5, 6]
    wait_until_one_worker_is_left(service)


def test_by_default_no_two_streams_share_a_worker() -> None:
    settings = TrackingSettings()
    assert settings.worker_count >= settings.stream_limit


def test_where_workers_are_fewer_streams_share_them(tmp_path: Path) -> None:
    tracking = ServiceProcess(
        "tracking", tmp_path, tracker="tests.fakes.tracker:open_fake_tracker", worker_count=2
    )
    try:
        assert counts_of_workers(tracking.wait_until_serving(), 4) == [1, 2, 2, 2]
    finally:
        assert tracking.stop() == 0


def test_a_killed_worker_is_replaced(service: ServiceProcess) -> None:
    def frames() -> Iterator[image_pb2.VideoFrame]:
        for index in range(10):
            if index == 5:
                for worker in service.workers():
                    worker.send_signal(signal.SIGKILL)
            yield video_frame(index, picture(102))

    responses = list(Stub(service.channel).Track(track_requests(frames()), timeout=60))
    indices = [response.face.parameters.frame_index for response in responses[1:]]
    assert indices == list(range(10))


def test_health_says_when_no_worker_is_left_and_when_one_is_back(service: ServiceProcess) -> None:
    request = health_pb2.HealthCheckRequest(service="styleavatar.v1.TrackingService")
    answers = health_pb2_grpc.HealthStub(service.channel).Watch(request, timeout=120)
    states = (answer.status for answer in answers)
    is_told = threading.Event()

    def strike() -> None:
        while not is_told.wait(0.05):
            for worker in service.workers():
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()

    striking = threading.Thread(target=strike)
    striking.start()
    try:
        assert next(state for state in states if state == STATES.NOT_SERVING)
    finally:
        is_told.set()
        striking.join()
    assert next(state for state in states if state == STATES.SERVING)
