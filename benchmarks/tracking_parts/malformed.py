# SPDX-License-Identifier: Apache-2.0
"""Frames and messages that no honest caller sends, for the tracking service."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import numpy as np
from styleavatar.v1 import face_pb2, image_pb2, tracking_service_pb2

from services.common.image_codec import encode_image

JPEG, PNG, RAW = (
    image_pb2.IMAGE_FORMAT_JPEG,
    image_pb2.IMAGE_FORMAT_PNG,
    image_pb2.IMAGE_FORMAT_RAW_RGB,
)
EVERY = image_pb2.FRAME_MODE_EVERY_FRAME
METHOD = "/styleavatar.v1.TrackingService/Track"
Message = tracking_service_pb2.TrackRequest


def malformed_frames(picture: np.ndarray, count: int, seed: int = 0) -> Iterator[Message]:
    """Yields frame messages: fuzzed, cut, empty, huge, of wrong sizes and formats."""
    rng = np.random.default_rng(seed)
    stored = {JPEG: encode_image(picture, "jpeg"), PNG: encode_image(picture, "png")}
    height, width = picture.shape[:2]
    for index in range(count):
        image = image_pb2.Image()
        kind = index % 10
        image.format = PNG if kind in (2, 3) else JPEG
        whole = stored[image.format]
        if kind in (0, 2):  # some bytes changed
            data = np.frombuffer(whole, np.uint8).copy()
            data[rng.integers(2, len(data), rng.integers(1, 40))] = rng.integers(0, 256)
            image.data = data.tobytes()
        elif kind in (1, 3):  # cut off
            image.data = whole[: rng.integers(0, len(whole))]
        elif kind == 4:  # noise, or nothing
            image.data = rng.bytes(int(rng.integers(0, 2000)) * int(index % 20 == 4))
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
            image.format, image.data = int(rng.choice([0, 4, 99])), whole
        else:  # much larger than anything useful
            image.format, image.data = RAW, bytes(3 * 5000 * 10)
            image.width_px, image.height_px = 5000, 10
        yield Message(frame=image_pb2.VideoFrame(frame_index=index, image=image))


def malformed_streams(count: int, seed: int = 0) -> Iterator[list[bytes]]:
    """Yields whole streams, as bytes: garbage, wrong order, configs that make no sense."""
    rng = np.random.default_rng(seed)
    config = Message(config=tracking_service_pb2.TrackConfig(frame_mode=EVERY))
    frame = Message(frame=image_pb2.VideoFrame())
    nan, inf = float("nan"), float("inf")
    configs = [
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


def answer_codes(
    channel: grpc.Channel, messages: list[bytes]
) -> tuple[grpc.StatusCode, str | None]:
    """Sends a stream of bytes and returns the status that it ends with, and the reason given."""
    call = channel.stream_stream(METHOD)(iter(messages), timeout=30)
    try:
        for _ in call:
            pass
    except grpc.RpcError:
        pass
    reasons = dict(call.trailing_metadata() or ())
    return call.code(), reasons.get("styleavatar-reason")
