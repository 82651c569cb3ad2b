# SPDX-License-Identifier: Apache-2.0
"""Frames and messages that no honest caller sends, for the tracking service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
from styleavatar.v1 import face_pb2, image_pb2, rendering_service_pb2, tracking_service_pb2

from services.common.grpc_server import MESSAGE_BYTES_LIMIT
from services.common.image_codec import encode_image
from services.rendering.h264 import H264Encoder

JPEG, PNG, RAW, H264 = (
    image_pb2.IMAGE_FORMAT_JPEG,
    image_pb2.IMAGE_FORMAT_PNG,
    image_pb2.IMAGE_FORMAT_RAW_RGB,
    image_pb2.IMAGE_FORMAT_H264,
)
EVERY = image_pb2.FRAME_MODE_EVERY_FRAME
TRACK, REENACT = (f"/styleavatar.v1.TrackingService/{name}" for name in ("Track", "Reenact"))
Message = tracking_service_pb2.TrackRequest
_KIND_COUNT = 12
_H264_SIDE_PX = 128


def malformed_frames(
    picture: np.ndarray, count: int, seed: int = 0
) -> Iterator[image_pb2.VideoFrame]:
    """Yields frames: fuzzed, cut, empty, huge, of wrong sizes and formats."""
    rng = np.random.default_rng(seed)
    stored = {JPEG: encode_image(picture, "jpeg"), PNG: encode_image(picture, "png")}
    small = np.ascontiguousarray(picture[:_H264_SIDE_PX, :_H264_SIDE_PX])
    key_frame, _ = H264Encoder(_H264_SIDE_PX, 30, 500_000).encode(small)
    height, width = picture.shape[:2]
    for index in range(count):
        image = image_pb2.Image()
        kind = index % _KIND_COUNT
        image.format = PNG if kind in (2, 3) else JPEG
        whole = stored[image.format]
        if kind in (0, 2):  # some bytes changed
            image.data = _fuzzed(whole, rng)
        elif kind in (1, 3):  # cut off
            image.data = whole[: rng.integers(0, len(whole))]
        elif kind == 4:  # noise, or nothing
            image.data = rng.bytes(int(rng.integers(0, 2000)) * int(rng.integers(0, 2)))
        elif kind == 5:  # a size that is not true
            image.data, image.width_px = whole, int(rng.integers(-5, 5000))
            image.height_px = int(rng.integers(1, 5000))
        elif kind == 6:  # raw pixels that do not fit their size
            image.format, image.data = RAW, rng.bytes(int(rng.integers(0, 5000)))
            image.width_px, image.height_px = width, height
        elif kind == 7:  # absurd sizes
            image.format, image.data = RAW, b"\0" * 300
            image.width_px = int(rng.choice([-1, 0, 1, 2**31 - 1]))
            image.height_px = int(rng.choice([-(2**31), 0, 1, 100_000]))
        elif kind == 8:  # a format that is none
            image.format = int(rng.choice([0, H264, 99]))  # type: ignore[assignment]
            image.data = whole
        elif kind == 9:  # video of which some bytes changed
            image.format, image.data = H264, _fuzzed(key_frame, rng)
        elif kind == 10:  # video that is cut off
            image.format, image.data = H264, key_frame[: rng.integers(0, len(key_frame))]
        else:  # much larger than anything useful
            image.format, image.data = RAW, bytes(3 * 5000 * 10)
            image.width_px, image.height_px = 5000, 10
        yield image_pb2.VideoFrame(frame_index=index, image=image)


def _fuzzed(whole: bytes, rng: np.random.Generator) -> bytes:
    """Changes some bytes behind the first two."""
    data = np.frombuffer(whole, np.uint8).copy()
    data[rng.integers(2, len(data), rng.integers(1, 40))] = rng.integers(0, 256)
    return data.tobytes()


def malformed_streams(count: int, seed: int = 0) -> Iterator[list[bytes]]:
    """Yields whole streams of `Track`, as bytes: garbage, wrong order, senseless configs."""
    rng = np.random.default_rng(seed)
    config = Message(config=tracking_service_pb2.TrackConfig(frame_mode=EVERY))
    frame = Message(frame=image_pb2.VideoFrame())
    nan, inf = float("nan"), float("inf")
    configs: list[dict[str, Any]] = [
        {"frame_mode": 77},
        {"face_identity": face_pb2.FaceIdentity(model_id="builtin-3", identity=[nan])},
        {"face_identity": face_pb2.FaceIdentity(model_id="builtin-3", identity=[0.0] * 3)},
        {"face_identity": face_pb2.FaceIdentity(model_id="nobody", identity=[inf] * 48)},
        {"face_identity": face_pb2.FaceIdentity(model_id="builtin-3", identity=[1e30] * 48)},
    ]
    for index in range(count):
        kind = index % 9
        if kind == 0:
            yield [b"\xff" + rng.bytes(int(rng.integers(1, 300)))]
        elif kind == 1:
            yield [frame.SerializeToString()]
        elif kind == 2:
            yield [b""]
        elif kind == 3:
            yield [config.SerializeToString(), config.SerializeToString()]
        else:
            config_of = tracking_service_pb2.TrackConfig(**configs[kind - 4])
            yield [Message(config=config_of).SerializeToString(), frame.SerializeToString()]


def malformed_reenactments(count: int, seed: int = 0) -> Iterator[list[bytes]]:
    """Yields whole streams of `Reenact`, as bytes; none comes as far as the rendering service."""
    rng = np.random.default_rng(seed)
    request = tracking_service_pb2.ReenactRequest
    senseless: dict[str, Any] = {"avatar_id": "nobody", "frame_mode": 77}
    config = rendering_service_pb2.RenderConfig(**senseless)
    for index in range(count):
        kind = index % 4
        if kind == 0:
            yield [b"\xff" + rng.bytes(int(rng.integers(1, 300)))]
        elif kind == 1:
            yield [request(frame=image_pb2.VideoFrame()).SerializeToString()]
        elif kind == 2:
            yield [b""]
        else:
            whole = tracking_service_pb2.ReenactConfig(rendering=config)
            yield [request(config=whole).SerializeToString()]


def huge_message() -> bytes:
    """Returns a frame that is larger than any message may be."""
    image = image_pb2.Image(format=RAW, data=bytes(MESSAGE_BYTES_LIMIT + 1))
    return Message(frame=image_pb2.VideoFrame(image=image)).SerializeToString()


def answer_codes(
    channel: grpc.Channel, messages: list[bytes], method: str = TRACK
) -> tuple[grpc.StatusCode, str | None]:
    """Sends a stream of bytes and returns the status that it ends with, and the reason given."""
    call = channel.stream_stream(method)(iter(messages), timeout=30)
    try:
        for _ in call:
            pass
    except grpc.RpcError:
        pass
    reasons = dict(call.trailing_metadata() or ())
    return call.code(), reasons.get("styleavatar-reason")
