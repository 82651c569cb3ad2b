# SPDX-License-Identifier: Apache-2.0
"""Frames of a driver in, pictures of an avatar out: tracking here, rendering elsewhere.

Tracking of one frame and rendering of the one before run at the same time. At most a few frames
are between the two, so with ``latest_frame`` the newest frame is still tracked next.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

import grpc
from styleavatar.v1 import (
    face_pb2,
    image_pb2,
    rendering_service_pb2,
    rendering_service_pb2_grpc,
    tracking_service_pb2,
)

from services.common.errors import error_from_status
from services.common.face_messages import duration_from_seconds, parameters_to_message
from services.common.mailbox import FrameMailbox
from services.common.storage import is_valid_id
from services.tracking.pool import TrackedFrame
from services.tracking.session import FrameItem, TrackSession
from styleavatar_core.errors import EngineError, NotFoundError

# Frames that are being rendered while the next is tracked; more would only add delay.
IN_FLIGHT_LIMIT = 2
CALL_TIMEOUT_S = 10.0
END_TIMEOUT_S = 2.0

AVATAR_HEADER = "x-avatar-id"

Metadata = tuple[tuple[str, str], ...]
StreamCall: TypeAlias = grpc.aio.StreamStreamCall


class RenderingClient:
    """The rendering service as this service uses it."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Metadata = ()) -> None:
        """Uses a channel.

        Args:
            channel: To a rendering service, or to the balancer before several.
            metadata: Sent with every call, such as an API key.
        """
        self._metadata = metadata
        self._stub = rendering_service_pb2_grpc.RenderingServiceStub(channel)

    async def face_identity(self, avatar_id: str) -> face_pb2.FaceIdentity:
        """Returns shape and texture of an avatar's person.

        Raises:
            StyleAvatarError: What the rendering service answered.
        """
        request = rendering_service_pb2.GetAvatarRequest(avatar_id=avatar_id)
        try:
            response = await self._stub.GetAvatar(
                request, timeout=CALL_TIMEOUT_S, metadata=self._metadata_for(avatar_id)
            )
        except grpc.aio.AioRpcError as error:
            metadata = error.trailing_metadata()
            raise error_from_status(error.code(), error.details(), metadata) from error
        return response.avatar.face_identity

    def _metadata_for(self, avatar_id: str) -> Metadata:
        """A balancer that hashes the avatar keeps each avatar on few nodes.

        Raises:
            NotFoundError: No avatar has such an id, and gRPC might not be able to send it.
        """
        if not is_valid_id(avatar_id):
            raise NotFoundError(
                f"There is no avatar {avatar_id[:64]!r}; the gateway lists those there are.",
                reason="AVATAR_NOT_FOUND",
            )
        return (*self._metadata, (AVATAR_HEADER, avatar_id))

    @asynccontextmanager
    async def stream(self, config: rendering_service_pb2.RenderConfig) -> AsyncIterator[StreamCall]:
        """Opens a stream and sends its config; cancels it at the end."""
        call = self._stub.StreamFrames(metadata=self._metadata_for(config.avatar_id))
        try:
            await call.write(rendering_service_pb2.StreamFramesRequest(config=config))
            yield call
            await _end(call)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            # A write to a stream that has ended does not say why; the call does.
            metadata = await call.trailing_metadata()
            raise error_from_status(await call.code(), await call.details(), metadata) from error
        finally:
            call.cancel()


async def _end(call: StreamCall) -> None:
    """Lets the other side end the stream, so that its place is free when our caller hears of it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_TIMEOUT_S):
            await call.done_writing()
            while await call.read() is not grpc.aio.EOF:
                pass


async def read_response(call: StreamCall) -> rendering_service_pb2.StreamFramesResponse:
    """Reads the next answer.

    Raises:
        EngineError: When the stream has ended though an answer is due.
    """
    response = await call.read()
    if response is grpc.aio.EOF:
        raise EngineError("The rendering service ended the stream early.")
    return response


@dataclass(frozen=True, slots=True)
class SentFrame:
    """A frame on its way through the rendering service.

    Attributes:
        tracked: What was found in it.
        dropped: Frames dropped before it, here.
        arrival_s: ``time.perf_counter()`` of its arrival.
    """

    tracked: TrackedFrame
    dropped: image_pb2.DroppedFrames
    arrival_s: float


class Reenactment:
    """One stream from driver frames to avatar pictures; answers keep the order of the frames."""

    def __init__(
        self, session: TrackSession, mailbox: FrameMailbox[FrameItem], call: StreamCall
    ) -> None:
        self._session = session
        self._mailbox = mailbox
        self._call = call
        self._order: asyncio.Queue[SentFrame | image_pb2.FrameFailure | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(IN_FLIGHT_LIMIT)

    async def answers(self) -> AsyncIterator[tracking_service_pb2.ReenactResponse]:
        """Yields one answer for each frame that was not dropped."""
        tracking = asyncio.create_task(self._track_all())
        try:
            while (sent := await self._order.get()) is not None:
                if isinstance(sent, SentFrame):
                    response = await read_response(self._call)
                    answer = _answer(response, sent)
                else:
                    answer = tracking_service_pb2.ReenactResponse(failure=sent)
                self._room.release()
                yield answer
            await tracking
        finally:
            tracking.cancel()
            await asyncio.gather(tracking, return_exceptions=True)

    async def _track_all(self) -> None:
        try:
            while True:
                await self._room.acquire()
                item = await self._mailbox.get()
                if item is None:
                    break
                self._session.drop_superseded(self._mailbox.take_superseded_count())
                await self._track_one(item)
        finally:
            self._order.put_nowait(None)

    async def _track_one(self, item: FrameItem) -> None:
        # First of all: should this frame fail or be dropped, what was declared before it holds.
        if item.set_neutral:
            await self._call.write(
                rendering_service_pb2.StreamFramesRequest(
                    set_neutral=rendering_service_pb2.SetNeutral()
                )
            )
        tracked = await self._session.track(item)
        if tracked is None:
            self._room.release()
            return
        if isinstance(tracked, image_pb2.FrameFailure):
            self._order.put_nowait(tracked)
            return
        await self._call.write(_render_request(tracked, item.frame))
        self._order.put_nowait(SentFrame(tracked, self._session.take_dropped(), item.arrival_s))


def _render_request(
    tracked: TrackedFrame, frame: image_pb2.VideoFrame
) -> rendering_service_pb2.StreamFramesRequest:
    if tracked.parameters is not None:
        return rendering_service_pb2.StreamFramesRequest(
            parameters=parameters_to_message(tracked.parameters)
        )
    hold = rendering_service_pb2.HoldFrame(
        frame_index=frame.frame_index, capture_offset=frame.capture_offset
    )
    return rendering_service_pb2.StreamFramesRequest(hold=hold)


def _answer(
    response: rendering_service_pb2.StreamFramesResponse, sent: SentFrame
) -> tracking_service_pb2.ReenactResponse:
    has_failed = response.HasField("failure")
    dropped = (response.failure if has_failed else response.frame).dropped
    dropped.superseded_count += sent.dropped.superseded_count
    dropped.worker_lost_count += sent.dropped.worker_lost_count
    if has_failed:
        return tracking_service_pb2.ReenactResponse(failure=response.failure)
    frame = response.frame
    durations = frame.stage_durations
    for stage, seconds in sent.tracked.timings_s.items():
        getattr(durations, stage).CopyFrom(duration_from_seconds(seconds))
    durations.total.CopyFrom(duration_from_seconds(time.perf_counter() - sent.arrival_s))
    return tracking_service_pb2.ReenactResponse(frame=frame)
