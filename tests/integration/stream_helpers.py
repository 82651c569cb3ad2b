# SPDX-License-Identifier: Apache-2.0
"""Messages as a caller of the gRPC services writes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from styleavatar.v1 import face_pb2, image_pb2, rendering_service_pb2, tracking_service_pb2

EVERY = image_pb2.FRAME_MODE_EVERY_FRAME
LATEST = image_pb2.FRAME_MODE_LATEST_FRAME
RAW = image_pb2.IMAGE_FORMAT_RAW_RGB


def face(index: int, value: float = 0.5) -> face_pb2.FaceParameters:
    return face_pb2.FaceParameters(
        frame_index=index,
        model_id="builtin-3",
        rotation=face_pb2.Quaternion(w=1),
        scale=0.5,
        expression=[value] + [0.0] * 51,
    )


def render_config(avatar_id: str, **changes: object) -> rendering_service_pb2.RenderConfig:
    values = {
        "avatar_id": avatar_id,
        "image_format": RAW,
        "frame_mode": EVERY,
        "driver": rendering_service_pb2.DRIVER_SAME_PERSON,
        **changes,
    }
    return rendering_service_pb2.RenderConfig(**values)


def render_requests(
    config: rendering_service_pb2.RenderConfig, faces: Iterable[face_pb2.FaceParameters]
) -> Iterator[rendering_service_pb2.StreamFramesRequest]:
    yield rendering_service_pb2.StreamFramesRequest(config=config)
    for parameters in faces:
        yield rendering_service_pb2.StreamFramesRequest(parameters=parameters)


def picture(value: int, side_px: int = 32) -> np.ndarray:
    return np.full((side_px, side_px, 3), value, np.uint8)


def video_frame(index: int, image: np.ndarray) -> image_pb2.VideoFrame:
    height, width = image.shape[:2]
    raw = image_pb2.Image(format=RAW, width_px=width, height_px=height, data=image.tobytes())
    frame = image_pb2.VideoFrame(frame_index=index, image=raw)
    frame.capture_offset.FromMilliseconds(40 * index)
    return frame


def reenact_requests(
    config: rendering_service_pb2.RenderConfig, frames: Iterable[image_pb2.VideoFrame]
) -> Iterator[tracking_service_pb2.ReenactRequest]:
    yield tracking_service_pb2.ReenactRequest(
        config=tracking_service_pb2.ReenactConfig(rendering=config)
    )
    for frame in frames:
        yield tracking_service_pb2.ReenactRequest(frame=frame)


def pixels(frame: rendering_service_pb2.RenderedFrame) -> np.ndarray:
    shape = (frame.image.height_px, frame.image.width_px, 3)
    return np.frombuffer(frame.image.data, np.uint8).reshape(shape)
