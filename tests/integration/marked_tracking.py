# SPDX-License-Identifier: Apache-2.0
"""Tracking in front of rendering, with workers whose answers show what they were made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from styleavatar.v1 import (
    image_pb2,
    tracking_service_pb2,
    tracking_service_pb2_grpc,
)

from tests.fakes.bundle import write_fake_bundle
from tests.integration.service_process import ServiceProcess
from tests.integration.stream_helpers import (
    EVERY,
    picture,
    video_frame,
)

ANNA = 10
Stub = tracking_service_pb2_grpc.TrackingServiceStub


@contextmanager
def serving(data: Path, **settings: object) -> Iterator[list[ServiceProcess]]:
    """Runs tracking, with some settings, in front of rendering, with two avatars.

    Both must end well.
    """
    write_fake_bundle(data / "avatars" / "anna", ANNA)
    write_fake_bundle(data / "avatars" / "slow", 30, {"render_s": 0.05})
    rendering = ServiceProcess("rendering", data, renderer="tests.fakes.renderer:FakeRenderer")
    tracking = ServiceProcess(
        "tracking",
        data,
        tracker="tests.fakes.tracker:open_fake_tracker",
        rendering_address=rendering.address,
        **settings,
    )
    try:
        yield [process.wait_until_serving() for process in (tracking, rendering)]
    finally:
        assert [process.stop() for process in (tracking, rendering)] == [0, 0]
        assert "Traceback" not in tracking.log + rendering.log


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
