# SPDX-License-Identifier: Apache-2.0
"""Callers of the rendering service: one that waits for each frame, and live ones."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from styleavatar.v1 import image_pb2, rendering_service_pb2, rendering_service_pb2_grpc

from services.common.errors import RETRY_DELAY_KEY
from services.common.face_messages import parameters_to_message
from styleavatar_core.face3d.builtin import BUILTIN_MODEL_ID
from styleavatar_core.types import FaceParameters

STREAM_TIMEOUT_S = 600
# Pictures of a stream that are not counted: it finds its pace.
FIRST_COUNT = 6

Request = rendering_service_pb2.StreamFramesRequest


def moving_face(frame_index: int) -> FaceParameters:
    """A face that nods, so that no two frames are alike."""
    angle = 0.1 * np.sin(0.2 * frame_index)
    return FaceParameters(
        model_id=BUILTIN_MODEL_ID,
        rotation=np.array([np.cos(angle / 2), np.sin(angle / 2), 0, 0], np.float32),
        translation=np.zeros(3, np.float32),
        scale=0.6,
        expression=np.full(52, 0.1, np.float32),
        eye_rotation=np.zeros((2, 2), np.float32),
        frame_index=frame_index,
    )


def face_request(frame_index: int) -> Request:
    """Asks for a frame."""
    return Request(parameters=parameters_to_message(moving_face(frame_index)))


def config_request(avatar_id: str, **changes: Any) -> Request:
    """Opens a stream; every frame is answered unless the changes say otherwise."""
    values: dict[str, Any] = {
        "avatar_id": avatar_id,
        "image_format": image_pb2.IMAGE_FORMAT_JPEG,
        "frame_mode": image_pb2.FRAME_MODE_EVERY_FRAME,
        "driver": rendering_service_pb2.DRIVER_SAME_PERSON,
        **changes,
    }
    return Request(config=rendering_service_pb2.RenderConfig(**values))


class Stream:
    """One stream, frame by frame."""

    def __init__(self, channel: grpc.Channel, avatar_id: str, **config: Any) -> None:
        self._asked: queue.Queue[Request | None] = queue.Queue()
        self._asked.put(config_request(avatar_id, **config))
        stub = rendering_service_pb2_grpc.RenderingServiceStub(channel)
        self._answers = stub.StreamFrames(iter(self._asked.get, None))
        next(self._answers)

    def send(self, frame_index: int) -> float:
        """Asks for a frame; returns ``time.perf_counter()`` when its face was there to be sent."""
        request = face_request(frame_index)
        made_s = time.perf_counter()
        self.ask(request)
        return made_s

    def ask(self, request: Request) -> None:
        """Sends a request that was made before."""
        self._asked.put(request)

    def receive(self) -> rendering_service_pb2.RenderedFrame:
        """Waits for the next frame."""
        return next(self._answers).frame

    def close(self) -> None:
        """Ends the stream."""
        self._asked.put(None)
        list(self._answers)


@dataclass
class LiveResult:
    """What a live caller saw.

    Attributes:
        arrivals_s: ``time.perf_counter()`` of each picture.
        began_s: The same of the first face that was sent; None when there was none.
        ended_s: The same of the last.
        refused_s: Time until it was refused; None when it was served.
        retry_delay_s: When to try again, as the refusal said.
    """

    arrivals_s: list[float] = field(default_factory=list)
    began_s: float | None = None
    ended_s: float | None = None
    refused_s: float | None = None
    retry_delay_s: float = 0.0

    def intervals_ms(self) -> list[float]:
        """Times between pictures, without the first; of the last until no more faces were sent."""
        if self.began_s is None or self.ended_s is None:
            return []
        moments = [self.began_s, *self.arrivals_s]
        counted = moments[min(FIRST_COUNT, len(moments) - 1) :]
        if counted[-1] < self.ended_s:
            counted.append(self.ended_s)
        return [1e3 * float(step) for step in np.diff(counted)]

    def pictures_per_second(self) -> float:
        """Rate over all those times; 0 when it was refused."""
        count = len(self.arrivals_s) - FIRST_COUNT
        if self.refused_s is not None or count <= 0:
            return 0.0
        return 1e3 * count / sum(self.intervals_ms())


def own_connection(address: str) -> grpc.aio.Channel:
    """Opens a channel with a connection of its own: callers on other machines share none."""
    return grpc.aio.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),))


async def live_stream(
    channel: grpc.aio.Channel, avatar_id: str, seconds: float, frames_per_second: int
) -> LiveResult:
    """Sends frames as a camera does and notes when pictures come."""
    result = LiveResult()
    started = time.perf_counter()
    stub = rendering_service_pb2_grpc.RenderingServiceStub(channel)
    call = stub.StreamFrames(timeout=STREAM_TIMEOUT_S)
    config = config_request(
        avatar_id,
        frame_mode=image_pb2.FRAME_MODE_LATEST_FRAME,
        frames_per_second=frames_per_second,
    )

    async def send() -> None:
        begun = result.began_s = time.perf_counter()
        for index in range(round(seconds * frames_per_second)):
            await call.write(face_request(index))
            result.ended_s = time.perf_counter()
            due = begun + (index + 1) / frames_per_second
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
        await call.done_writing()

    try:
        await call.write(config)
        await call.read()
        sending = asyncio.create_task(send())
        while (response := await call.read()) is not grpc.aio.EOF:
            if response.HasField("frame"):
                result.arrivals_s.append(time.perf_counter())
        await sending
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        result.refused_s = time.perf_counter() - started
        told = dict(error.trailing_metadata())
        result.retry_delay_s = float(told[RETRY_DELAY_KEY])
    return result


def run_streams(
    address: str, avatar_ids: Sequence[str], seconds: float, frames_per_second: int
) -> list[LiveResult]:
    """Runs one live stream for each id, all at once."""

    async def one(avatar_id: str) -> LiveResult:
        async with own_connection(address) as channel:
            return await live_stream(channel, avatar_id, seconds, frames_per_second)

    async def run() -> list[LiveResult]:
        return await asyncio.gather(*map(one, avatar_ids))

    return asyncio.run(run())
