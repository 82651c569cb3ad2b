# SPDX-License-Identifier: Apache-2.0
"""The two calls that answer with pictures of an avatar: one takes camera frames, one takes faces.

Their answers are built alike: the granted config, then a picture or a failure for each frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from google.protobuf.duration_pb2 import Duration
from styleavatar.v1 import (
    image_pb2,
    rendering_service_pb2,
    rendering_service_pb2_grpc,
    tracking_service_pb2,
    tracking_service_pb2_grpc,
)

from styleavatar_client.frames import (
    IMAGE_FORMATS,
    DriverFace,
    DriverFrame,
    MissingFace,
    StoredFrame,
)

Request = Any  # a message of the call
Response = tracking_service_pb2.ReenactResponse | rendering_service_pb2.StreamFramesResponse


@dataclass(frozen=True, slots=True)
class Rpc:
    """How a call is opened and what is sent with it.

    Attributes:
        open: Takes a channel; gives what begins the call.
        config: Makes the first message.
        neutral: Makes the message that declares the frame before neutral.
        frame: Makes the message of a frame.
    """

    open: Callable[[grpc.Channel], Callable[..., Any]]  # gRPC's own have no types
    config: Callable[[rendering_service_pb2.RenderConfig], Request]
    neutral: Callable[[], Request]
    frame: Callable[[Any], Request]


def _reenact_frame(frame: DriverFrame | StoredFrame) -> tracking_service_pb2.ReenactRequest:
    message = image_pb2.VideoFrame(
        frame_index=frame.frame_index,
        capture_offset=_offset(frame.capture_time_s),
        image=_stored(frame) if isinstance(frame, StoredFrame) else _raw(frame),
    )
    return tracking_service_pb2.ReenactRequest(frame=message)


def _stored(frame: StoredFrame) -> image_pb2.Image:
    return image_pb2.Image(format=IMAGE_FORMATS[frame.image_format], data=frame.data)


def _raw(frame: DriverFrame) -> image_pb2.Image:
    height, width = frame.image.shape[:2]
    return image_pb2.Image(
        format=image_pb2.IMAGE_FORMAT_RAW_RGB,
        width_px=width,
        height_px=height,
        data=np.ascontiguousarray(frame.image).tobytes(),
    )


def _face(face: DriverFace | MissingFace) -> rendering_service_pb2.StreamFramesRequest:
    if isinstance(face, DriverFace):
        return rendering_service_pb2.StreamFramesRequest(parameters=face.parameters)
    hold = rendering_service_pb2.HoldFrame(
        frame_index=face.frame_index, capture_offset=_offset(face.capture_time_s)
    )
    return rendering_service_pb2.StreamFramesRequest(hold=hold)


def _offset(time_s: float) -> Duration:
    offset = Duration()
    offset.FromNanoseconds(round(time_s * 1e9))
    return offset


REENACT = Rpc(
    open=lambda channel: tracking_service_pb2_grpc.TrackingServiceStub(channel).Reenact,
    config=lambda config: tracking_service_pb2.ReenactRequest(
        config=tracking_service_pb2.ReenactConfig(rendering=config)
    ),
    neutral=lambda: tracking_service_pb2.ReenactRequest(
        set_neutral=rendering_service_pb2.SetNeutral()
    ),
    frame=_reenact_frame,
)
STREAM_FRAMES = Rpc(
    open=lambda channel: rendering_service_pb2_grpc.RenderingServiceStub(channel).StreamFrames,
    config=lambda config: rendering_service_pb2.StreamFramesRequest(config=config),
    neutral=lambda: rendering_service_pb2.StreamFramesRequest(
        set_neutral=rendering_service_pb2.SetNeutral()
    ),
    frame=_face,
)
