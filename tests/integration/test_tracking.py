# SPDX-License-Identifier: Apache-2.0
"""The tracking service over real sockets: what becomes of each frame."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import httpx
import numpy as np
import pytest
from styleavatar.v1 import (
    face_pb2,
    image_pb2,
    tracking_service_pb2,
)

from services.common.image_codec import encode_image
from services.rendering.h264 import H264Encoder
from tests.integration.marked_tracking import Stub, kinds, serving, track_requests, wrong_size
from tests.integration.service_process import ServiceProcess
from tests.integration.stream_helpers import (
    LATEST,
    picture,
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
    untracked = (responses[1].no_face, responses[6].failure)  # as those with a face, they say when
    assert [answer.capture_offset.ToMilliseconds() for answer in untracked] == [0, 200]
    assert responses[5].no_face.capture_offset.ToMilliseconds() == 160


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


def test_one_bad_stream_disturbs_no_other(stub: Stub) -> None:
    good = stub.Track(track_requests([video_frame(i, picture(150)) for i in range(40)]))
    with pytest.raises(grpc.RpcError):
        list(stub.Track(track_requests([], face_identity=face_pb2.FaceIdentity(identity=[np.nan]))))
    assert kinds(list(good)) == ["config"] + ["face"] * 40


def test_metrics_tell_faces_from_failures(stub: Stub, services: list[ServiceProcess]) -> None:
    list(stub.Track(track_requests([video_frame(0, picture(102)), wrong_size(1)])))
    text = httpx.get(f"http://127.0.0.1:{services[0].metrics_port}/metrics").text
    assert 'styleavatar_tracking_frames_total{result="face"}' in text
    assert 'styleavatar_tracking_frames_total{result="failure"}' in text
