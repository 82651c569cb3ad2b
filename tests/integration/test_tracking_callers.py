# SPDX-License-Identifier: Apache-2.0
"""Callers of the tracking service that fall silent do not hold a stream for good."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator

import grpc
import pytest

from tests.integration.marked_tracking import Stub, kinds, serving, track_requests
from tests.integration.service_process import ServiceProcess
from tests.integration.stream_helpers import picture, reenact_requests, render_config, video_frame

FRAMES = [video_frame(0, picture(102))]
Messages = list[object]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    data = tmp_path_factory.mktemp("data")
    # With one stream at a time, each test also shows that the one before gave its place back.
    with serving(data, idle_timeout_s=1.5, stream_limit=1, worker_count=1) as (tracking, _):
        yield tracking


def listen(answers: Iterator[object], heard: list[object]) -> None:
    """Keeps what came before an error, too."""
    for answer in answers:
        heard.append(answer)


def end_of(method: Callable[..., Iterator[object]], messages: Messages) -> tuple[list[str], str]:
    """What a caller hears who sends some messages, keeps his stream open and says no more."""
    waiting: queue.Queue[object] = queue.Queue()
    for message in messages:
        waiting.put(message)
    heard: list[object] = []
    with pytest.raises(grpc.RpcError) as caught:
        listen(method(iter(waiting.get, None), timeout=60), heard)
    waiting.put(None)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert ("styleavatar-reason", "IDLE_TIMEOUT") in caught.value.trailing_metadata()
    return kinds(heard), caught.value.details()


@pytest.mark.parametrize("name", ["Track", "Reenact"])
def test_a_caller_who_does_not_say_what_he_wants_is_let_go(
    service: ServiceProcess, name: str
) -> None:
    heard, words = end_of(getattr(Stub(service.channel), name), [])
    assert heard == []
    assert "no config came for 1.5 s" in words


def test_a_caller_of_track_who_falls_silent_is_let_go(service: ServiceProcess) -> None:
    heard, words = end_of(Stub(service.channel).Track, list(track_requests(FRAMES)))
    assert heard == ["config", "face"]
    assert "no frame came for 1.5 s" in words


def test_a_caller_of_reenact_who_falls_silent_is_let_go(service: ServiceProcess) -> None:
    messages = list(reenact_requests(render_config("anna"), FRAMES))
    heard, words = end_of(Stub(service.channel).Reenact, messages)
    assert heard == ["config", "frame"]
    assert "no frame came for 1.5 s" in words


def test_one_who_goes_on_in_time_is_served_to_his_end(service: ServiceProcess) -> None:
    answers = list(Stub(service.channel).Track(track_requests(FRAMES * 3), timeout=60))
    assert kinds(answers) == ["config", "face", "face", "face"]


@pytest.mark.parametrize("name", ["Track", "Reenact"])
def test_those_who_find_no_place_come_back_each_at_another_time(
    service: ServiceProcess, name: str
) -> None:
    stub = Stub(service.channel)
    held: queue.Queue[object] = queue.Queue()
    for message in track_requests(FRAMES):
        held.put(message)
    holding = stub.Track(iter(held.get, None), timeout=60)
    next(holding)
    delays_s = set()
    for _ in range(5):
        with pytest.raises(grpc.RpcError) as caught:
            next(getattr(stub, name)(iter(list[object]()), timeout=60))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        delays_s.add(dict(caught.value.trailing_metadata())["styleavatar-retry-delay-s"])
    held.put(None)
    assert kinds(list(holding)) == ["face"]
    assert len(delays_s) > 1
