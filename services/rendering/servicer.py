# SPDX-License-Identifier: Apache-2.0
"""The RPCs of the rendering service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import grpc
from styleavatar.v1 import image_pb2, rendering_service_pb2, rendering_service_pb2_grpc

from services.common.face_messages import parameters_from_message, seconds_from_duration
from services.common.mailbox import FrameMailbox, closing_mailbox
from services.common.metrics import RenderingMetrics
from services.rendering.catalog import AvatarCatalog, AvatarEntry
from services.rendering.convert import avatar_to_message, grant_config
from services.rendering.pool.pool import RenderPool
from services.rendering.session import RenderSession, StreamItem, merge_items
from styleavatar_core.errors import InvalidInputError, NotFoundError, OverloadedError, RenderError

# How often a running stream looks whether its avatar was deleted.
EXISTENCE_CHECK_S = 1.0


class RenderingServicer(rendering_service_pb2_grpc.RenderingServiceServicer):
    """Answers callers; knows neither engines nor processes."""

    def __init__(
        self,
        catalog: AvatarCatalog,
        pool: RenderPool,
        metrics: RenderingMetrics,
        *,
        stream_limit: int,
    ) -> None:
        self._catalog = catalog
        self._pool = pool
        self._metrics = metrics
        self._stream_limit = stream_limit
        self._stream_count = 0

    async def ListAvatars(
        self,
        request: rendering_service_pb2.ListAvatarsRequest,
        context: grpc.aio.ServicerContext,
    ) -> rendering_service_pb2.ListAvatarsResponse:
        entries = await asyncio.to_thread(self._catalog.list)
        avatars = [avatar_to_message(e, self._pool.is_loaded(e.avatar_id)) for e in entries]
        return rendering_service_pb2.ListAvatarsResponse(avatars=avatars)

    async def GetAvatar(
        self, request: rendering_service_pb2.GetAvatarRequest, context: grpc.aio.ServicerContext
    ) -> rendering_service_pb2.GetAvatarResponse:
        entry = await self._entry(request.avatar_id)
        avatar = avatar_to_message(entry, self._pool.is_loaded(entry.avatar_id))
        return rendering_service_pb2.GetAvatarResponse(avatar=avatar)

    async def RenderFrame(
        self, request: rendering_service_pb2.RenderFrameRequest, context: grpc.aio.ServicerContext
    ) -> rendering_service_pb2.RenderFrameResponse:
        arrival_s = time.perf_counter()
        parameters = parameters_from_message(request.parameters)
        entry = await self._entry(request.config.avatar_id)
        config = grant_config(request.config, entry)
        config.frame_mode = image_pb2.FRAME_MODE_EVERY_FRAME
        item = StreamItem(
            parameters.frame_index, parameters.capture_time_s, parameters, arrival_s=arrival_s
        )
        async with self._pool.lane(entry) as lane:
            answer = await RenderSession(config, lane, self._metrics).answer(item)
        if answer is None or answer.HasField("failure"):
            raise RenderError(answer.failure.message if answer else "The frame was not rendered.")
        return rendering_service_pb2.RenderFrameResponse(frame=answer.frame)

    async def StreamFrames(
        self,
        request_iterator: AsyncIterator[rendering_service_pb2.StreamFramesRequest],
        context: grpc.aio.ServicerContext,
    ) -> AsyncIterator[rendering_service_pb2.StreamFramesResponse]:
        if self._stream_count >= self._stream_limit:
            raise OverloadedError(
                f"All {self._stream_limit} streams of this service are in use; try again later.",
                retry_delay_s=2.0,
            )
        self._stream_count += 1
        self._metrics.streams.inc()
        try:
            async for response in self._stream(request_iterator):
                yield response
        finally:
            self._stream_count -= 1
            self._metrics.streams.dec()

    async def _stream(
        self, requests: AsyncIterator[rendering_service_pb2.StreamFramesRequest]
    ) -> AsyncIterator[rendering_service_pb2.StreamFramesResponse]:
        opened_s = time.perf_counter()
        asked = await _read_config(requests)
        entry = await self._entry(asked.avatar_id)
        config = grant_config(asked, entry)
        latest_only = config.frame_mode == image_pb2.FRAME_MODE_LATEST_FRAME
        mailbox = FrameMailbox(latest_only=latest_only, merge=merge_items)
        async with self._pool.lane(entry) as lane:
            await lane.load()
            self._metrics.loaded_avatars.set(self._pool.loaded_count)
            yield rendering_service_pb2.StreamFramesResponse(config=config)
            reading = asyncio.create_task(_read_frames(requests, mailbox))
            try:
                session = RenderSession(config, lane, self._metrics)
                is_first = True
                async for response in self._answers(session, mailbox, entry):
                    yield response
                    if is_first:
                        self._metrics.first_frame.observe(time.perf_counter() - opened_s)
                        is_first = False
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _answers(
        self, session: RenderSession, mailbox: FrameMailbox[StreamItem], entry: AvatarEntry
    ) -> AsyncIterator[rendering_service_pb2.StreamFramesResponse]:
        checked_s = time.perf_counter()
        while (item := await mailbox.get()) is not None:
            if time.perf_counter() - checked_s > EXISTENCE_CHECK_S:
                await self._entry(entry.avatar_id)
                checked_s = time.perf_counter()
            response = await session.answer(item, mailbox.take_superseded_count())
            if response is not None:
                yield response

    async def _entry(self, avatar_id: str) -> AvatarEntry:
        try:
            return await asyncio.to_thread(self._catalog.get, avatar_id)
        except NotFoundError:
            await self._pool.forget(avatar_id)
            raise


async def _read_config(
    requests: AsyncIterator[rendering_service_pb2.StreamFramesRequest],
) -> rendering_service_pb2.RenderConfig:
    async for request in requests:
        if request.WhichOneof("request") != "config":
            break
        return request.config
    raise InvalidInputError(
        "The first message of a stream must be its config.", reason="CONFIG_MISSING"
    )


async def _read_frames(
    requests: AsyncIterator[rendering_service_pb2.StreamFramesRequest],
    mailbox: FrameMailbox[StreamItem],
) -> None:
    """Moves requests into the mailbox until the caller is done or sends something unusable."""
    set_neutral = False
    async with closing_mailbox(mailbox):
        async for request in requests:
            kind = request.WhichOneof("request")
            if kind == "set_neutral":
                set_neutral = True
                continue
            await mailbox.put(_read_item(request, set_neutral))
            set_neutral = False


def _read_item(request: rendering_service_pb2.StreamFramesRequest, set_neutral: bool) -> StreamItem:
    arrival_s = time.perf_counter()
    kind = request.WhichOneof("request")
    if kind == "parameters":
        parameters = parameters_from_message(request.parameters)
        return StreamItem(
            parameters.frame_index,
            parameters.capture_time_s,
            parameters,
            set_neutral,
            arrival_s,
        )
    if kind == "hold":
        hold = request.hold
        capture_time_s = seconds_from_duration(hold.capture_offset)
        return StreamItem(hold.frame_index, capture_time_s, None, set_neutral, arrival_s)
    raise InvalidInputError(
        "The config may only be sent once, as the first message."
        if kind == "config"
        else "A message of the stream is empty.",
        reason="BAD_MESSAGE",
    )
