# SPDX-License-Identifier: Apache-2.0
"""The RPCs of the rendering service."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import grpc
from styleavatar.v1 import image_pb2, rendering_service_pb2, rendering_service_pb2_grpc

from services.common.face_messages import parameters_from_message
from services.common.grpc_server import Leaving
from services.common.mailbox import FrameMailbox, running
from services.common.metrics import RenderingMetrics
from services.common.opening import StreamLimit, first_config
from services.common.silence import end_when_silent
from services.rendering.answering import Answers
from services.rendering.catalog import AvatarCatalog, AvatarEntry
from services.rendering.convert import avatar_to_message, grant_config, grant_rate
from services.rendering.encoding import Encoding
from services.rendering.output import PictureWriter, read_background
from services.rendering.pool.pool import RenderPool
from services.rendering.requests import StreamItem, merge_items, read_frames
from services.rendering.session import RenderSession
from styleavatar_core.errors import (
    EngineUnavailableError,
    NotFoundError,
    RenderError,
    StyleAvatarError,
)
from styleavatar_core.types import ByteArray

logger = logging.getLogger(__name__)

# How often the avatar of a running stream is looked for.
WATCH_INTERVAL_S = 1.0


class RenderingServicer(rendering_service_pb2_grpc.RenderingServiceServicer):
    """Answers callers; knows neither engines nor processes."""

    def __init__(
        self,
        catalog: AvatarCatalog,
        pool: RenderPool,
        metrics: RenderingMetrics,
        leaving: Leaving,
        *,
        stream_limit: int,
        frames_per_second: int = 30,
        utilization_limit: float = 1.0,
        idle_timeout_s: float = 300.0,
    ) -> None:
        """Connects the parts.

        Args:
            catalog: The avatars there are.
            pool: The workers.
            metrics: Where streams are counted.
            leaving: Says when this server stops.
            stream_limit: Open streams; more are refused.
            frames_per_second: Rate of a stream that does not say its own.
            utilization_limit: Share of the time of what stores pictures that streams may reserve.
            idle_timeout_s: A stream that sends no config or no frame for so long is ended.
        """
        self._catalog = catalog
        self._pool = pool
        self._metrics = metrics
        self._leaving = leaving
        self._encoding = Encoding(metrics, utilization_limit)
        self._stream_limit = StreamLimit(stream_limit, metrics.refused_streams.labels("limit").inc)
        self._frames_per_second = frames_per_second
        self._idle_timeout_s = idle_timeout_s
        self._mailboxes: set[FrameMailbox[StreamItem]] = set()
        metrics.queued_frames.set_function(self._queued_count)

    async def ListAvatars(
        self,
        request: rendering_service_pb2.ListAvatarsRequest,
        context: grpc.aio.ServicerContext,
    ) -> rendering_service_pb2.ListAvatarsResponse:
        entries = await asyncio.to_thread(self._catalog.list)
        avatars = [avatar_to_message(e, self._pool.is_loaded(e)) for e in entries]
        return rendering_service_pb2.ListAvatarsResponse(avatars=avatars)

    async def GetAvatar(
        self, request: rendering_service_pb2.GetAvatarRequest, context: grpc.aio.ServicerContext
    ) -> rendering_service_pb2.GetAvatarResponse:
        entry = await self._entry(request.avatar_id)
        avatar = avatar_to_message(entry, self._pool.is_loaded(entry))
        return rendering_service_pb2.GetAvatarResponse(avatar=avatar)

    async def LoadAvatar(
        self, request: rendering_service_pb2.LoadAvatarRequest, context: grpc.aio.ServicerContext
    ) -> rendering_service_pb2.LoadAvatarResponse:
        entry = await self._entry(request.avatar_id)
        await self._pool.load(entry)
        avatar = avatar_to_message(entry, loaded=True)
        return rendering_service_pb2.LoadAvatarResponse(avatar=avatar)

    async def RenderFrame(
        self, request: rendering_service_pb2.RenderFrameRequest, context: grpc.aio.ServicerContext
    ) -> rendering_service_pb2.RenderFrameResponse:
        arrival_s = time.perf_counter()
        self._pool.admission.require_single_room()  # who is refused shall cost next to nothing
        parameters = parameters_from_message(request.parameters)
        entry = await self._entry(request.config.avatar_id)
        config = grant_config(request.config, entry)
        config.frame_mode = image_pb2.FRAME_MODE_EVERY_FRAME
        item = StreamItem(
            parameters.frame_index, parameters.capture_time_s, parameters, arrival_s=arrival_s
        )
        background = await self._background(request.config, entry)
        writer = PictureWriter(config, background)
        async with self._pool.single_lane(entry) as lane:
            answering = Answers(writer, self._encoding, self._metrics)
            session = RenderSession(config, lane, answering, with_mask=writer.needs_mask)
            answer = await session.finish(session.begin(item))
            answering.count()
        if answering.error is not None:
            raise answering.error
        if answer is None:
            raise RenderError("The frame was not rendered.")
        return rendering_service_pb2.RenderFrameResponse(frame=answer.frame)

    async def StreamFrames(
        self,
        request_iterator: AsyncIterator[rendering_service_pb2.StreamFramesRequest],
        context: grpc.aio.ServicerContext,
    ) -> AsyncGenerator[rendering_service_pb2.StreamFramesResponse, None]:
        with self._stream_limit.admitted(self._metrics.streams):
            asked = await first_config(request_iterator, self._idle_timeout_s)
            asked_s = time.perf_counter()
            entry, config = await self._grant(asked)
            background = await self._background(asked, entry)
            del asked  # it may hold 32 MB, as stored
            writer = PictureWriter(config, background)
            latest_only = config.frame_mode == image_pb2.FRAME_MODE_LATEST_FRAME
            side_px = entry.manifest.image_size_px
            async with (
                self._encoding.reserved(config, background, side_px),
                self._pool.stream_lane(
                    entry, config.frames_per_second, is_live=config.live
                ) as lane,
                self._mailbox(latest_only) as mailbox,
            ):
                yield rendering_service_pb2.StreamFramesResponse(config=config)
                answering = Answers(writer, self._encoding, self._metrics, self._leaving.has_begun)
                session = RenderSession(config, lane, answering, with_mask=writer.needs_mask)
                reading = read_frames(request_iterator, mailbox)
                watching = self._watch(entry.avatar_id, mailbox)
                silence = end_when_silent(mailbox, self._idle_timeout_s)
                leaving = self._leave_in_time(mailbox)
                async with (
                    running(reading, watching, silence, leaving),
                    aclosing(session.answers(mailbox)) as answers,
                ):
                    is_first = True
                    async for response in answers:
                        yield response
                        if is_first:
                            self._metrics.first_frame.observe(time.perf_counter() - asked_s)
                            is_first = False

    async def _grant(
        self, asked: rendering_service_pb2.RenderConfig
    ) -> tuple[AvatarEntry, rendering_service_pb2.RenderConfig]:
        if (known := self._catalog.known(asked.avatar_id)) is not None:
            # Whoever is refused shall cost those who are served next to nothing.
            rate = grant_rate(asked, self._frames_per_second)
            await self._pool.admission.require_room(known, rate)
        entry = await self._entry(asked.avatar_id)
        return entry, grant_config(asked, entry, self._frames_per_second)

    async def _background(
        self, asked: rendering_service_pb2.RenderConfig, entry: AvatarEntry
    ) -> ByteArray | None:
        if asked.background != rendering_service_pb2.BACKGROUND_IMAGE:
            return None  # without a turn behind the pictures of others
        side_px = entry.manifest.image_size_px
        return await self._encoding.run(read_background, asked, side_px)

    @asynccontextmanager
    async def _mailbox(self, latest_only: bool) -> AsyncIterator[FrameMailbox[StreamItem]]:
        """Makes a stream's mailbox; what waits in it is counted."""
        mailbox = FrameMailbox(latest_only=latest_only, merge=merge_items)
        self._mailboxes.add(mailbox)
        try:
            yield mailbox
        finally:
            self._mailboxes.remove(mailbox)

    def _queued_count(self) -> int:
        waiting = sum(mailbox.waiting_count for mailbox in tuple(self._mailboxes))
        return waiting + self._pool.waiting_count  # metrics are read by another thread

    async def _watch(self, avatar_id: str, mailbox: FrameMailbox[StreamItem]) -> None:
        """Ends a stream whose avatar was deleted."""
        try:
            while True:
                await asyncio.sleep(WATCH_INTERVAL_S)
                try:
                    await self._entry(avatar_id)
                except OSError as error:  # the store cannot be read now: nothing is known of it
                    logger.warning("the store cannot be read", extra={"reason": str(error)})
        except StyleAvatarError as error:
            await mailbox.close(error)

    async def _leave_in_time(self, mailbox: FrameMailbox[StreamItem]) -> None:
        """Ends a stream before the grace period of a stopping server does, losing no frame."""
        await self._leaving.last_call()
        await mailbox.close(
            EngineUnavailableError(
                "This server stops; go on with a new stream, which reaches another.",
                reason="GOING_AWAY",
            )
        )

    async def _entry(self, avatar_id: str) -> AvatarEntry:
        try:
            return await asyncio.to_thread(self._catalog.get, avatar_id)
        except NotFoundError:
            await self._pool.forget(avatar_id)
            raise
