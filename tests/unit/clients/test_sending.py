# SPDX-License-Identifier: Apache-2.0
"""Frames outlive the calls that carry them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from styleavatar.v1 import image_pb2, rendering_service_pb2, tracking_service_pb2
from styleavatar_client.frames import DriverFrame
from styleavatar_client.sending import FrameSource

CONFIG = rendering_service_pb2.RenderConfig(avatar_id="anna")


def frames(count: int) -> Iterator[DriverFrame]:
    for index in range(count):
        yield DriverFrame(index, 0.04 * index, np.zeros((16, 16, 3), np.uint8))


def index_of(request: tracking_service_pb2.ReenactRequest) -> int:
    return request.frame.frame_index if request.HasField("frame") else -1


def failure(index: int) -> tracking_service_pb2.ReenactResponse:
    return tracking_service_pb2.ReenactResponse(failure=image_pb2.FrameFailure(frame_index=index))


def test_what_a_dead_call_did_not_answer_is_sent_again() -> None:
    source = FrameSource(frames(5), in_flight_limit=3)
    ended = threading.Event()
    first = source.requests(CONFIG, ended)
    assert [index_of(next(first)) for _ in range(4)] == [-1, 0, 1, 2]
    source.answer(failure(0))
    ended.set()
    second = source.requests(CONFIG, threading.Event())
    assert [index_of(next(second)) for _ in range(4)] == [-1, 1, 2, 3]
    for index in (1, 2, 3):
        source.answer(failure(index))
    assert index_of(next(second)) == 4
    assert not source.is_done
    source.answer(failure(4))
    assert list(second) == []
    assert source.is_done


def test_a_frame_that_came_too_late_for_a_call_goes_to_the_next() -> None:
    go_on = threading.Event()

    def waiting_frames() -> Iterator[DriverFrame]:
        go_on.wait(10)
        yield from frames(1)

    source = FrameSource(waiting_frames(), in_flight_limit=None)
    ended = threading.Event()
    left: list[tracking_service_pb2.ReenactRequest] = []
    call = source.requests(CONFIG, ended)
    next(call)
    sender = threading.Thread(target=lambda: left.extend(call))
    sender.start()
    ended.set()
    go_on.set()
    sender.join(10)
    following = source.requests(CONFIG, threading.Event())
    assert left == []
    assert [index_of(request) for request in following] == [-1, 0]


def test_a_source_that_fails_says_so() -> None:
    def broken() -> Iterator[DriverFrame]:
        yield from frames(1)
        raise OSError("the camera is gone")

    source = FrameSource(broken(), in_flight_limit=None)
    assert [index_of(r) for r in source.requests(CONFIG, threading.Event())] == [-1, 0]
    with pytest.raises(OSError, match="camera"):
        raise source.error or AssertionError("no error was kept")
