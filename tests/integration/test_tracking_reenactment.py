# SPDX-License-Identifier: Apache-2.0
"""Reenactment over real sockets: the tracking service in front of the rendering service."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from styleavatar.v1 import (
    image_pb2,
    rendering_service_pb2,
    tracking_service_pb2,
)

from tests.fakes.bundle import wide_statistics, write_fake_bundle
from tests.fakes.renderer import read_mark
from tests.integration.marked_tracking import ANNA, Stub, kinds, serving, track_requests, wrong_size
from tests.integration.service_process import ServiceProcess, free_port
from tests.integration.stream_helpers import (
    EVERY,
    LATEST,
    picture,
    pixels,
    reenact_requests,
    render_config,
    video_frame,
)


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ServiceProcess]]:
    with serving(tmp_path_factory.mktemp("data")) as processes:
        yield processes


@pytest.fixture
def stub(services: list[ServiceProcess]) -> Stub:
    return Stub(services[0].channel)


def test_reenactment_answers_every_frame_in_order(stub: Stub) -> None:
    frames = [video_frame(index, picture(102)) for index in range(30)]
    frames[0] = video_frame(0, picture(0))
    frames[9] = video_frame(9, picture(0))
    frames[12] = wrong_size(12)
    responses = list(stub.Reenact(reenact_requests(render_config("anna"), frames), timeout=60))
    assert responses[0].config.rendering.frame_mode == EVERY
    assert not responses[0].config.rendering.live
    answered = []
    for response in responses[1:]:
        answered.append(response.frame.frame_index or response.failure.frame_index)
        if response.HasField("frame"):
            assert response.frame.synthetic
            assert read_mark(pixels(response.frame))[0] == ANNA
    assert answered == list(range(30))
    assert kinds(responses)[1:] == ["frame"] * 12 + ["failure"] + ["frame"] * 17
    assert [r.frame.held for r in responses[1:]].count(True) == 2
    assert responses[10].frame.held
    assert read_mark(pixels(responses[10].frame)) == (ANNA, 9, 40)
    assert responses[11].frame.stage_durations.tracking.ToNanoseconds() > 0


def neutral_after(
    before: list[image_pb2.VideoFrame], after: list[image_pb2.VideoFrame], **config: object
) -> Iterator[tracking_service_pb2.ReenactRequest]:
    other = rendering_service_pb2.DRIVER_OTHER_PERSON
    yield from reenact_requests(render_config("anna", driver=other, **config), before)
    yield tracking_service_pb2.ReenactRequest(set_neutral=rendering_service_pb2.SetNeutral())
    yield from (tracking_service_pb2.ReenactRequest(frame=frame) for frame in after)


def shown_level(frame: rendering_service_pb2.RenderedFrame) -> int:
    return read_mark(pixels(frame))[2]


@pytest.mark.parametrize("unusable", [wrong_size(4), None])
def test_a_neutral_that_is_declared_before_a_bad_frame_is_not_lost_with_it(
    stub: Stub, unusable: image_pb2.VideoFrame | None
) -> None:
    wide = [video_frame(index, picture(250)) for index in range(4)]
    bad = [unusable] if unusable is not None else []
    after = [*bad, video_frame(5, picture(250))]
    frames = [r.frame for r in stub.Reenact(neutral_after(wide, after), timeout=60) if r.frame]
    levels = [shown_level(frame) for frame in frames if frame.HasField("image")]
    rest = round(100 * float(wide_statistics().neutral_expression[0]))
    assert levels[0] > rest + 50
    assert levels[-1] == rest


def test_live_reenactment_shows_the_newest_frame(stub: Stub) -> None:
    frames = [video_frame(index, picture(102)) for index in range(60)]
    config = render_config("slow", frame_mode=LATEST)
    responses = list(stub.Reenact(reenact_requests(config, frames)))
    assert responses[0].config.rendering.live  # to the rendering service, too
    pictures = [response.frame for response in responses[1:]]
    assert pictures[-1].frame_index == 59
    assert len(pictures) < 60
    assert len(pictures) + sum(p.dropped.superseded_count for p in pictures) == 60


def test_what_rendering_refuses_is_passed_on(stub: Stub) -> None:
    for driver in (
        rendering_service_pb2.DRIVER_SAME_PERSON,
        rendering_service_pb2.DRIVER_OTHER_PERSON,
    ):
        config = render_config("nobody", driver=driver)
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.Reenact(reenact_requests(config, []), timeout=30))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert "nobody" in caught.value.details()


@pytest.mark.parametrize("name", ["äpfel", "a\nb", "a" * 9000, ""])
def test_a_name_that_no_avatar_has_is_not_found(stub: Stub, name: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.Reenact(reenact_requests(render_config(name), []), timeout=30))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_without_rendering_reenactment_says_so(tmp_path: Path) -> None:
    tracking = ServiceProcess(
        "tracking",
        tmp_path,
        tracker="tests.fakes.tracker:open_fake_tracker",
        rendering_address=f"127.0.0.1:{free_port()}",
    )
    try:
        stub = Stub(tracking.wait_until_serving().channel)
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.Reenact(reenact_requests(render_config("anna"), []), timeout=30))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert len(list(stub.Track(track_requests([video_frame(0, picture(9))])))) == 2
    finally:
        assert tracking.stop(signal.SIGINT) == 0
    assert "Traceback" not in tracking.log


def test_a_signal_amid_streams_ends_them_and_both_services_cleanly(tmp_path: Path) -> None:
    write_fake_bundle(tmp_path / "avatars" / "anna", ANNA, {"render_s": 0.02})
    rendering = ServiceProcess(
        "rendering", tmp_path, renderer="tests.fakes.renderer:FakeRenderer", drain_timeout_s=0.3
    )
    tracking = ServiceProcess(
        "tracking",
        tmp_path,
        tracker="tests.fakes.tracker:open_fake_tracker",
        rendering_address=rendering.address,
        drain_timeout_s=0.3,
    )
    stub = Stub(tracking.wait_until_serving().channel)
    rendering.wait_until_serving()
    frames = (video_frame(index, picture(102)) for index in range(100_000))
    stream = stub.Reenact(reenact_requests(render_config("anna"), frames), timeout=60)
    for _ in range(5):
        next(stream)
    codes = [rendering.stop(), tracking.stop(signal.SIGINT)]
    with pytest.raises(grpc.RpcError) as caught:
        list(stream)
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert codes == [0, 0]
    for log in (rendering.log, tracking.log):
        assert "Traceback" not in log
        assert "never retrieved" not in log
        assert '"ERROR"' not in log
