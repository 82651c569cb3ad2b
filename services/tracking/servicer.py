# SPDX-License-Identifier: Apache-2.0
"""The RPCs of the tracking service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import grpc
from styleavatar.v1 import (
    image_pb2,
    rendering_service_pb2,
    tracking_service_pb2,
    tracking_service_pb2_grpc,
)

from services.common.face_messages import identity_from_message, parameters_to_message
from services.common.mailbox import FrameMailbox, running
from services.common.metrics import TrackingMetrics
from services.common.opening import StreamLimit, first_config
from services.common.silence import end_when_silent
from services.tracking.pool import TrackerOptions, TrackingPool
from services.tracking.reenactment import Reenactment, RenderingClient, read_response
from services.tracking.session import (
    FrameItem,
    Request,
    TrackSession,
    frame_mailbox,
    granted_frame_mode,
    read_frames,
)
from styleavatar_core.errors import InvalidInputError
from styleavatar_core.face3d.builtin import BUILTIN_MODEL_ID


class TrackingServicer(tracking_service_pb2_grpc.TrackingServiceServicer):
    """Answers callers; knows neither landmark models nor processes."""

    def __init__(
        self,
        pool: TrackingPool,
        rendering: RenderingClient,
        metrics: TrackingMetrics,
        *,
        stream_limit: int,
        idle_timeout_s: float,
    ) -> None:
        """Connects the parts.

        Args:
            pool: The workers.
            rendering: Where `Reenact` has its pictures made.
            metrics: Where streams are counted.
            stream_limit: Open streams; more are refused.
            idle_timeout_s: A stream that sends no config or no frame for so long is ended.
        """
        self._pool = pool
        self._rendering = rendering
        self._metrics = metrics
        self._stream_limit = StreamLimit(stream_limit)
        self._idle_timeout_s = idle_timeout_s

    async def Track(
        self,
        request_iterator: AsyncIterator[tracking_service_pb2.TrackRequest],
        context: grpc.aio.ServicerContext,
    ) -> AsyncIterator[tracking_service_pb2.TrackResponse]:
        with self._stream_limit.admitted(self._metrics.streams.labels("Track")):
            config = await first_config(request_iterator, self._idle_timeout_s)
            config.frame_mode = granted_frame_mode(config.frame_mode)
            options = _track_options(config)
            config.model_id = options.model_id
            async with self._pool.lane(options) as lane:
                yield tracking_service_pb2.TrackResponse(config=config)
                session = TrackSession(lane, config.frame_mode, self._metrics)
                mailbox = frame_mailbox(config.frame_mode)
                async with self._reading(request_iterator, mailbox):
                    async for response in _track_answers(session, mailbox):
                        yield response

    async def Reenact(
        self,
        request_iterator: AsyncIterator[tracking_service_pb2.ReenactRequest],
        context: grpc.aio.ServicerContext,
    ) -> AsyncIterator[tracking_service_pb2.ReenactResponse]:
        with self._stream_limit.admitted(self._metrics.streams.labels("Reenact")):
            asked = (await first_config(request_iterator, self._idle_timeout_s)).rendering
            frame_mode = granted_frame_mode(asked.frame_mode)
            options = await self._tracker_options(asked)
            asked.live |= _is_live(frame_mode)
            # What is dropped is dropped before tracking; what was tracked is rendered.
            asked.frame_mode = image_pb2.FRAME_MODE_EVERY_FRAME
            async with self._rendering.stream(asked) as call:
                granted = (await read_response(call)).config
                granted.frame_mode = frame_mode
                async with self._pool.lane(options) as lane:
                    yield tracking_service_pb2.ReenactResponse(
                        config=tracking_service_pb2.ReenactConfig(rendering=granted)
                    )
                    session = TrackSession(lane, frame_mode, self._metrics)
                    mailbox = frame_mailbox(frame_mode)
                    async with self._reading(request_iterator, mailbox):
                        async for answer in Reenactment(session, mailbox, call).answers():
                            yield answer

    def _reading(
        self, requests: AsyncIterator[Request], mailbox: FrameMailbox[FrameItem]
    ) -> AbstractAsyncContextManager[None]:
        """Reads the frames of a stream beside the block, and ends it when none come."""
        silence = end_when_silent(mailbox, self._idle_timeout_s)
        return running(read_frames(requests, mailbox), silence)

    async def _tracker_options(self, asked: rendering_service_pb2.RenderConfig) -> TrackerOptions:
        identity = identity_from_message(await self._rendering.face_identity(asked.avatar_id))
        if asked.driver != rendering_service_pb2.DRIVER_SAME_PERSON:
            return TrackerOptions(identity.model_id)
        # The avatar was trained on unfiltered parameters: offline, stay as close to them as can be.
        return TrackerOptions(identity.model_id, identity, filtered=_is_live(asked.frame_mode))


def _track_options(config: tracking_service_pb2.TrackConfig) -> TrackerOptions:
    """Reads how a stream of `Track` is to be tracked.

    Raises:
        InvalidInputError: The identity is of another face model than the one that is asked for.
    """
    identity = None
    model_id = config.model_id or BUILTIN_MODEL_ID
    if config.HasField("face_identity"):
        identity = identity_from_message(config.face_identity)
        model_id = config.model_id or identity.model_id
        if model_id != identity.model_id:
            raise InvalidInputError(
                f"The identity is of face model '{identity.model_id}', but '{model_id}' is asked "
                "for."
            )
    return TrackerOptions(model_id, identity, filtered=_is_live(config.frame_mode))


def _is_live(frame_mode: int) -> bool:
    return frame_mode != image_pb2.FRAME_MODE_EVERY_FRAME


async def _track_answers(
    session: TrackSession, mailbox: FrameMailbox[FrameItem]
) -> AsyncIterator[tracking_service_pb2.TrackResponse]:
    while (item := await mailbox.get()) is not None:
        session.drop_superseded(mailbox.take_superseded_count())
        tracked = await session.track(item)
        if tracked is None:
            continue
        if isinstance(tracked, image_pb2.FrameFailure):
            yield tracking_service_pb2.TrackResponse(failure=tracked)
        elif tracked.parameters is None:
            no_face = tracking_service_pb2.NoFace(
                frame_index=item.frame.frame_index,
                dropped=session.take_dropped(),
                capture_offset=item.frame.capture_offset,
            )
            yield tracking_service_pb2.TrackResponse(no_face=no_face)
        else:
            face = tracking_service_pb2.TrackedFace(
                parameters=parameters_to_message(tracked.parameters),
                dropped=session.take_dropped(),
            )
            yield tracking_service_pb2.TrackResponse(face=face)
