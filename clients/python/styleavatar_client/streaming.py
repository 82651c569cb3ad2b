# SPDX-License-Identifier: Apache-2.0
"""Frames of a driver in, pictures of an avatar out: a synchronous client of the gRPC services.

with AvatarStreams("127.0.0.1:50051") as streams:
for answer in streams.drive("avatar-1", frames, every_frame=True):
answer.image  # (S, S, 3) uint8 RGB
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType

import grpc
import numpy as np
import numpy.typing as npt
from google.protobuf.duration_pb2 import Duration
from styleavatar.v1 import (
    image_pb2,
    rendering_service_pb2,
    tracking_service_pb2,
    tracking_service_pb2_grpc,
)

from styleavatar_client.errors import grpc_errors

ByteArray = npt.NDArray[np.uint8]

MESSAGE_BYTES_LIMIT = 32 * 1024 * 1024
# Frames under way with `every_frame`: fills the pipeline of tracking and rendering, no more.
IN_FLIGHT_LIMIT = 4

_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_BYTES_LIMIT),
    ("grpc.keepalive_time_ms", 30_000),
)


@dataclass(frozen=True, slots=True)
class DriverFrame:
    """A frame of the driver.

    Attributes:
        frame_index: Echoed by the answer.
        capture_time_s: Seconds from any zero; grows.
        image: (H, W, 3) uint8 RGB.
        is_neutral: Whether the driver's expression in the frame before is declared neutral.
    """

    frame_index: int
    capture_time_s: float
    image: ByteArray
    is_neutral: bool = False


@dataclass(frozen=True, slots=True)
class AvatarFrame:
    """A picture of the avatar, or why there is none.

    Attributes:
        frame_index: Index of the driver's frame.
        capture_time_s: Its capture time.
        image: (S, S, 3) uint8 RGB; None when the frame failed.
        latency_s: From handing the frame to gRPC to having the answer.
        synthetic: True for every picture: no camera saw it.
        clamped: Whether the driver left what the avatar has learned.
        held: Whether no face was found, so that the last one is shown again.
        dropped_count: Frames dropped since the last answer.
        stage_ms: Time of each stage inside the services.
        failure: One sentence when the frame failed.
    """

    frame_index: int
    capture_time_s: float
    image: ByteArray | None
    latency_s: float
    synthetic: bool = False
    clamped: bool = False
    held: bool = False
    dropped_count: int = 0
    stage_ms: dict[str, float] = field(default_factory=dict)
    failure: str = ""


class AvatarStreams:
    """Connection to a tracking service; closed at the end of a ``with`` block."""

    def __init__(self, tracking_address: str = "127.0.0.1:50051") -> None:
        """Connects lazily.

        Args:
            tracking_address: ``host:port``.
        """
        self._address = tracking_address
        self._channel = grpc.insecure_channel(tracking_address, options=_CHANNEL_OPTIONS)
        self._stub = tracking_service_pb2_grpc.TrackingServiceStub(self._channel)

    def __enter__(self) -> AvatarStreams:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends all streams and the connection."""
        self._channel.close()

    def drive(
        self,
        avatar_id: str,
        frames: Iterable[DriverFrame],
        *,
        every_frame: bool = False,
        same_person: bool = False,
        image_size_px: int = 0,
    ) -> Iterator[AvatarFrame]:
        """Drives an avatar with frames; a live source paces itself.

        Args:
            avatar_id: The avatar.
            frames: Taken from another thread, as fast as they come and can be sent.
            every_frame: Answer every frame in order, at whatever rate; else the newest wins.
            same_person: The driver is the avatar's person filmed as in the training video.
            image_size_px: Side of the pictures; 0 for the avatar's own.

        Yields:
            One answer for each frame that was not dropped.

        Raises:
            ClientError: When a service refuses, fails or cannot be reached.
        """
        modes = (image_pb2.FRAME_MODE_LATEST_FRAME, image_pb2.FRAME_MODE_EVERY_FRAME)
        drivers = (
            rendering_service_pb2.DRIVER_OTHER_PERSON,
            rendering_service_pb2.DRIVER_SAME_PERSON,
        )
        config = rendering_service_pb2.RenderConfig(
            avatar_id=avatar_id,
            image_format=image_pb2.IMAGE_FORMAT_RAW_RGB,
            image_size_px=image_size_px,
            frame_mode=modes[every_frame],
            driver=drivers[same_person],
        )
        outgoing = _Outgoing(config, frames, IN_FLIGHT_LIMIT if every_frame else None)
        with grpc_errors(self._address):
            call = self._stub.Reenact(iter(outgoing))
            try:
                for response in call:
                    if response.WhichOneof("response") != "config":
                        yield outgoing.answer(response)
            finally:
                outgoing.stop()
                call.cancel()
        if outgoing.error is not None:
            raise outgoing.error


class _Outgoing:
    """The sending half, which gRPC runs in a thread of its own."""

    def __init__(
        self,
        config: rendering_service_pb2.RenderConfig,
        frames: Iterable[DriverFrame],
        in_flight_limit: int | None,
    ) -> None:
        self.error: Exception | None = None
        self._config = config
        self._frames = frames
        self._room = threading.Semaphore(in_flight_limit) if in_flight_limit else None
        self._stopped = threading.Event()
        self._sent_s: dict[int, float] = {}

    def stop(self) -> None:
        """Ends the sending."""
        self._stopped.set()

    def __iter__(self) -> Iterator[tracking_service_pb2.ReenactRequest]:
        yield tracking_service_pb2.ReenactRequest(
            config=tracking_service_pb2.ReenactConfig(rendering=self._config)
        )
        try:
            for frame in self._frames:
                if not self._wait_for_room():
                    return
                if frame.is_neutral:
                    yield tracking_service_pb2.ReenactRequest(
                        set_neutral=rendering_service_pb2.SetNeutral()
                    )
                self._sent_s[frame.frame_index] = time.perf_counter()
                yield tracking_service_pb2.ReenactRequest(frame=_frame_message(frame))
        except Exception as error:  # the source failed: raised where the caller sees it
            self.error = error

    def answer(self, response: tracking_service_pb2.ReenactResponse) -> AvatarFrame:
        """Reads an answer and makes room for another frame."""
        now_s = time.perf_counter()
        if self._room is not None:
            self._room.release()
        if response.HasField("failure"):
            failure = response.failure
            latency_s = now_s - self._sent_s.pop(failure.frame_index, now_s)
            return AvatarFrame(failure.frame_index, 0.0, None, latency_s, failure=failure.message)
        frame = response.frame
        latency_s = now_s - self._sent_s.pop(frame.frame_index, now_s)
        shape = (frame.image.height_px, frame.image.width_px, 3)
        dropped = frame.dropped
        return AvatarFrame(
            frame_index=frame.frame_index,
            capture_time_s=frame.capture_offset.ToNanoseconds() / 1e9,
            image=np.frombuffer(frame.image.data, np.uint8).reshape(shape),
            latency_s=latency_s,
            synthetic=frame.synthetic,
            clamped=frame.clamped,
            held=frame.held,
            dropped_count=sum(count for _, count in dropped.ListFields()),
            stage_ms={
                stage.name: duration.ToNanoseconds() / 1e6
                for stage, duration in frame.stage_durations.ListFields()
            },
        )

    def _wait_for_room(self) -> bool:
        if self._room is None:
            return not self._stopped.is_set()
        while not self._room.acquire(timeout=0.2):
            if self._stopped.is_set():
                return False
        return not self._stopped.is_set()


def _frame_message(frame: DriverFrame) -> image_pb2.VideoFrame:
    height, width = frame.image.shape[:2]
    offset = Duration()
    offset.FromNanoseconds(round(frame.capture_time_s * 1e9))
    return image_pb2.VideoFrame(
        frame_index=frame.frame_index,
        capture_offset=offset,
        image=image_pb2.Image(
            format=image_pb2.IMAGE_FORMAT_RAW_RGB,
            width_px=width,
            height_px=height,
            data=np.ascontiguousarray(frame.image).tobytes(),
        ),
    )
