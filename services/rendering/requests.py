# SPDX-License-Identifier: Apache-2.0
"""What callers of ``StreamFrames`` send: the config first, then frames."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from styleavatar.v1 import face_pb2, rendering_service_pb2

from services.common.face_messages import parameters_from_message, seconds_from_duration
from services.common.mailbox import FrameMailbox, closing_mailbox
from styleavatar_core.errors import InvalidInputError
from styleavatar_core.types import FaceParameters


@dataclass(frozen=True, slots=True)
class StreamItem:
    """One frame that is asked for.

    Attributes:
        frame_index: Echoed.
        capture_time_s: Echoed.
        parameters: The driver's face; None to hold the last one.
        set_neutral: Whether the driver's face before this one is declared neutral.
        arrival_s: ``time.perf_counter()`` of its arrival.
        error: Why it cannot be used; None if it can.
    """

    frame_index: int
    capture_time_s: float
    parameters: FaceParameters | None
    set_neutral: bool = False
    arrival_s: float = 0.0
    error: InvalidInputError | None = None


def merge_items(older: StreamItem, newer: StreamItem) -> StreamItem:
    """Lets a newer frame take the place of an older one, keeping what was declared with it."""
    return replace(newer, set_neutral=newer.set_neutral or older.set_neutral)


async def read_frames(
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
            await mailbox.put(_read_item(request, kind, set_neutral))
            set_neutral = False


def _read_item(
    request: rendering_service_pb2.StreamFramesRequest, kind: str | None, set_neutral: bool
) -> StreamItem:
    arrival_s = time.perf_counter()
    frame: face_pb2.FaceParameters | rendering_service_pb2.HoldFrame
    parameters, error, capture_time_s = None, None, 0.0
    if kind == "parameters":
        frame = request.parameters
    elif kind == "hold":
        frame = request.hold
    else:
        raise InvalidInputError(
            "The config may only be sent once, as the first message."
            if kind == "config"
            else "A message of the stream is empty.",
            reason="BAD_MESSAGE",
        )
    try:
        capture_time_s = seconds_from_duration(frame.capture_offset)
        if isinstance(frame, face_pb2.FaceParameters):
            parameters = parameters_from_message(frame)
    except InvalidInputError as unusable:
        error = unusable
    return StreamItem(frame.frame_index, capture_time_s, parameters, set_neutral, arrival_s, error)
