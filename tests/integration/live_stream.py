# SPDX-License-Identifier: Apache-2.0
"""Streams of the rendering service as an asyncio caller drives them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
from styleavatar.v1 import rendering_service_pb2, rendering_service_pb2_grpc

from tests.fakes.renderer import read_mark
from tests.integration.stream_helpers import face, pixels, render_config

Request = rendering_service_pb2.StreamFramesRequest

TIMEOUT_S = 60


@dataclass
class Driven:
    """What a stream answered, and how it ended.

    Attributes:
        frames: Pictures, without failures.
        sent: Frames that were written to the stream.
        dropped: Sum of all reasons.
        code: Final status.
        reason: Its machine-readable word.
    """

    frames: list[rendering_service_pb2.RenderedFrame] = field(default_factory=list)
    sent: int = 0
    dropped: int = 0
    code: grpc.StatusCode | None = None
    reason: str = ""

    def take(self, response: rendering_service_pb2.StreamFramesResponse) -> None:
        """Notes an answer."""
        if response.HasField("frame"):
            self.frames.append(response.frame)
        answer = response.frame if response.HasField("frame") else response.failure
        self.dropped += sum(count for _, count in answer.dropped.ListFields())

    def end(self, code: grpc.StatusCode, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Notes how the stream ended."""
        self.code = code
        self.reason = str(dict(metadata).get("styleavatar-reason", ""))

    @property
    def indices(self) -> list[int]:
        return [frame.frame_index for frame in self.frames]

    def assert_own(self, mark: int) -> None:
        """Every picture is of the right avatar and shows the frame that it says."""
        for frame in self.frames:
            expected = (mark, frame.frame_index % 256, 50)
            assert read_mark(pixels(frame)) == expected, f"frame {frame.frame_index}"
        assert self.indices == sorted(set(self.indices))


async def drive(
    address: str,
    avatar_id: str,
    until: Callable[[Driven], bool],
    *,
    interval_s: float = 0.0,
    window: int = 4,
    **config: object,
) -> Driven:
    """Sends frames until the condition holds, closes, and collects all answers.

    Args:
        address: Of the service.
        avatar_id: The avatar.
        until: Looked at before each frame.
        interval_s: Between frames.
        window: Frames that may be without an answer; a live stream has no such bound.
        config: Fields of the config.
    """
    driven = Driven()
    room = asyncio.Semaphore(window)
    async with grpc.aio.insecure_channel(address) as channel:
        stub = rendering_service_pb2_grpc.RenderingServiceStub(channel)
        call = stub.StreamFrames(timeout=TIMEOUT_S)

        async def send() -> None:
            while not until(driven):
                if window:
                    await room.acquire()
                await call.write(Request(parameters=face(driven.sent)))
                driven.sent += 1
                await asyncio.sleep(interval_s)
            await call.done_writing()

        try:
            await call.write(Request(config=render_config(avatar_id, **config)))
            await call.read()
            async with sending(send()):
                while (response := await call.read()) is not grpc.aio.EOF:
                    room.release()
                    driven.take(response)
        except grpc.aio.AioRpcError:
            pass
        driven.end(await call.code(), await call.trailing_metadata() or ())
    return driven


def drive_to_the_end(
    address: str,
    avatar_id: str,
    *,
    interval_s: float,
    before_each: Callable[[Driven], None] = lambda driven: None,
    **config: object,
) -> Driven:
    """Sends frames until the service ends the stream, and says how it did.

    Not through asyncio: if that client of gRPC meets the end of a stream while it writes, it
    forgets the status and tells of an internal error.
    """
    driven = Driven()
    ended = threading.Event()

    def requests() -> Iterator[Request]:
        yield Request(config=render_config(avatar_id, **config))
        while not ended.wait(interval_s):
            before_each(driven)
            yield Request(parameters=face(driven.sent))
            driven.sent += 1

    with grpc.insecure_channel(address) as channel:
        stub = rendering_service_pb2_grpc.RenderingServiceStub(channel)
        call = stub.StreamFrames(requests(), timeout=TIMEOUT_S)
        try:
            for response in call:
                driven.take(response)
        except grpc.RpcError:
            pass
        finally:
            ended.set()
        driven.end(call.code(), call.trailing_metadata())
    return driven


@asynccontextmanager
async def sending(work) -> AsyncIterator[None]:
    """Runs the sending half; that a stream ended under it is for the reading half to say."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
