# SPDX-License-Identifier: Apache-2.0
"""The tracking service over real sockets, alone and in front of the rendering service."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from styleavatar.v1 import (
    face_pb2,
    image_pb2,
    rendering_service_pb2,
    tracking_service_pb2,
    tracking_service_pb2_grpc,
)

from services.common.image_codec import encode_image
from services.rendering.h264 import H264Encoder
from services.tracking.settings import TrackingSettings
from tests.fakes.bundle import wide_statistics, write_fake_bundle
from tests.fakes.renderer import read_mark
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

ANNA = 10
Stub = tracking_service_pb2_grpc.TrackingServiceStub


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ServiceProcess]]:
    data = tmp_path_factory.mktemp("data")
    write_fake_bundle(data / "avatars" / "anna", ANNA)
    write_fake_bundle(data / "avatars" / "slow", 30, {"render_s": 0.05})
    rendering = ServiceProcess("rendering", data, renderer="tests.fakes.renderer:FakeRenderer")
    tracking = ServiceProcess(
        "tracking",
        data,
        tracker="tests.fakes.tracker:open_fake_tracker",
        rendering_address=rendering.address,
    )
    try:
        yield [process.wait_until_serving() for process in (tracking, rendering)]
    finally:
        assert [process.stop() for process in (tracking, rendering)] == [0, 0]
        assert "Traceback" not in tracking.log + rendering.log


@pytest.fixture
def stub(services: list[ServiceProcess]) -> Stub:
    return Stub(services[0].channel)


def track_requests(
    frames: list[image_pb2.VideoFrame], **config: object
) -> Iterator[tracking_service_pb2.TrackRequest]:
    values = {"frame_mode": EVERY, **config}
    yield tracking_service_pb2.TrackRequest(config=tracking_service_pb2.TrackConfig(**values))
    for frame in frames:
        yield tracking_service_pb2.TrackRequest(frame=frame)


def kinds(responses: list) -> list[str]:
    return [response.WhichOneof("response") for response in responses]


def wrong_size(index: int) -> image_pb2.VideoFrame:
    frame = video_frame(index, picture(99))
    frame.image.data = frame.image.data[:-3]
    return frame


def test_faces_missing_faces_and_bad_frames_are_answered_in_order(stub: Stub) -> None:
    frames = [video_frame(index, picture(51 * (index % 4))) for index in range(12)]
    frames[5] = wrong_size(5)
    frames[6].image.format = 0
    responses = list(stub.Track(track_requests(frames), timeout=30))
    expected = ["no_face" if index % 4 == 0 else "face" for index in range(12)]
    expected[5:7] = ["failure", "failure"]
    assert kinds(responses) == ["config", *expected]
    parameters = responses[4].face.parameters
    assert (parameters.frame_index, parameters.capture_offset.ToMilliseconds()) == (3, 120)
    assert parameters.expression[0] == pytest.approx(0.6)
    assert responses[6].failure.frame_index == 5
    assert responses[6].failure.reason == "WRONG_IMAGE_SIZE"
    assert "32x32" in responses[6].failure.message
    assert responses[7].failure.reason == "UNKNOWN_IMAGE_FORMAT"


def test_jpeg_and_png_frames_are_read(stub: Stub) -> None:
    frames = []
    for index, name in enumerate(("jpeg", "png")):
        data = encode_image(picture(200), name)
        image = image_pb2.Image(format=(1, 2)[index], data=data)
        frames.append(image_pb2.VideoFrame(frame_index=index, image=image))
    frames.append(image_pb2.VideoFrame(frame_index=2, image=image_pb2.Image(format=1, data=b"no")))
    responses = list(stub.Track(track_requests(frames), timeout=30))
    assert kinds(responses) == ["config", "face", "face", "failure"]
    assert responses[3].failure.reason == "UNREADABLE_IMAGE"
    for response in responses[1:3]:
        assert response.face.parameters.expression[0] == pytest.approx(200 / 255, abs=0.01)


def redness(index: int) -> int:
    return 40 + 8 * (index % 20)


def h264_frames(count: int) -> list[image_pb2.VideoFrame]:
    """Frames whose faces grow redder; every tenth is a key frame."""
    encoder = H264Encoder(64, frames_per_second=5, bits_per_second=300_000)
    frames = []
    for index in range(count):
        frame = video_frame(index, picture(0))
        unit, _ = encoder.encode(picture(redness(index), side_px=64))
        frame.image.CopyFrom(image_pb2.Image(format=image_pb2.IMAGE_FORMAT_H264, data=unit))
        frames.append(frame)
    return frames


def test_h264_is_tracked_and_recovers_from_garbage_at_the_next_key_frame(stub: Stub) -> None:
    frames = h264_frames(16)
    frames[4].image.data = b"garbage"
    responses = list(stub.Track(track_requests(frames), timeout=60))[1:]
    assert kinds(responses) == ["face"] * 4 + ["failure"] * 6 + ["face"] * 6
    reasons = [response.failure.reason for response in responses[4:10]]
    assert reasons == ["UNREADABLE_IMAGE"] + ["KEY_FRAME_NEEDED"] * 5
    for index in (3, 10, 15):
        face = responses[index].face.parameters
        assert face.expression[0] == pytest.approx(redness(index) / 255, abs=0.03)


def test_live_h264_loses_no_reference_with_the_frames_it_drops(stub: Stub) -> None:
    config = render_config("slow", frame_mode=LATEST)
    responses = list(stub.Reenact(reenact_requests(config, h264_frames(60)), timeout=60))[1:]
    assert {response.WhichOneof("response") for response in responses} == {"frame"}
    assert len(responses) < 60
    assert responses[-1].frame.frame_index == 59


def test_live_tracking_counts_what_it_drops(stub: Stub) -> None:
    frames = [video_frame(index, picture(100, side_px=800)) for index in range(60)]
    faces = [r.face for r in list(stub.Track(track_requests(frames, frame_mode=LATEST)))[1:]]
    assert faces[-1].parameters.frame_index == 59
    assert len(faces) + sum(face.dropped.superseded_count for face in faces) == 60


def test_a_stream_must_begin_with_its_config(stub: Stub) -> None:
    message = tracking_service_pb2.TrackRequest(frame=video_frame(0, picture(9)))
    for call in (
        stub.Track(iter([message])),
        stub.Reenact(iter([tracking_service_pb2.ReenactRequest(frame=message.frame)])),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_reenactment_answers_every_frame_in_order(stub: Stub) -> None:
    frames = [video_frame(index, picture(102)) for index in range(30)]
    frames[0] = video_frame(0, picture(0))
    frames[9] = video_frame(9, picture(0))
    frames[12] = wrong_size(12)
    responses = list(stub.Reenact(reenact_requests(render_config("anna"), frames), timeout=60))
    assert responses[0].config.rendering.frame_mode == EVERY
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
    pictures = [r.frame for r in list(stub.Reenact(reenact_requests(config, frames)))[1:]]
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


def test_one_bad_stream_disturbs_no_other(stub: Stub) -> None:
    good = stub.Track(track_requests([video_frame(i, picture(150)) for i in range(40)]))
    with pytest.raises(grpc.RpcError):
        list(stub.Track(track_requests([], face_identity=face_pb2.FaceIdentity(identity=[np.nan]))))
    assert kinds(list(good)) == ["config"] + ["face"] * 40


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


def test_each_stream_has_a_worker_of_its_own_that_ends_with_it(
    services: list[ServiceProcess],
) -> None:
    wait_until_one_worker_is_left(services[0])  # those of other tests may be about to end
    assert counts_of_workers(services[0], 6) == [1, 2, 3, 4, 5, 6]
    wait_until_one_worker_is_left(services[0])


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


def test_a_killed_worker_is_replaced(stub: Stub, services: list[ServiceProcess]) -> None:
    def frames() -> Iterator[image_pb2.VideoFrame]:
        for index in range(10):
            if index == 5:
                for worker in services[0].workers():
                    worker.send_signal(signal.SIGKILL)
            yield video_frame(index, picture(102))

    responses = list(stub.Track(track_requests(frames()), timeout=60))
    indices = [response.face.parameters.frame_index for response in responses[1:]]
    assert indices == list(range(10))


def test_metrics_tell_faces_from_failures(stub: Stub, services: list[ServiceProcess]) -> None:
    list(stub.Track(track_requests([video_frame(0, picture(102)), wrong_size(1)])))
    text = httpx.get(f"http://127.0.0.1:{services[0].metrics_port}/metrics").text
    assert 'styleavatar_tracking_frames_total{result="face"}' in text
    assert 'styleavatar_tracking_frames_total{result="failure"}' in text


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
