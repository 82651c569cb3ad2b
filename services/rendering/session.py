# SPDX-License-Identifier: Apache-2.0
"""One stream: retargets what the driver sends, has it rendered ahead, answers in order."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace

from styleavatar.v1 import image_pb2, rendering_service_pb2

from services.common.face_messages import seconds_from_duration
from services.common.mailbox import FrameMailbox
from services.common.worker.messages import OUT_OF_MEMORY
from services.rendering.answering import Answers
from services.rendering.convert import gains_from_message
from services.rendering.pool.frames import FRAME_LATE, RenderedPicture
from services.rendering.pool.lane import WITHOUT_WORKER_S, AskedFrame, Lane, no_worker
from services.rendering.requests import StreamItem
from styleavatar_core.avatar.reenactment import ParameterStatistics, Retargeter
from styleavatar_core.errors import (
    EngineError,
    EngineUnavailableError,
    InvalidInputError,
    OverloadedError,
    WorkerLostError,
)

# A frame on which workers die this often is given up, lest it kill one after the other.
ATTEMPT_LIMIT = 3
# Frames of one `every_frame` stream at its worker: one is rendered, the next lies ready.
IN_FLIGHT_LIMIT = 2
# gRPC took longer than this to accept a picture: the caller does not read as fast as it asks.
SLOW_SENDING_S = 0.02


@dataclass(frozen=True, slots=True)
class FrameUnderWay:
    """A frame that a worker has been asked for.

    Attributes:
        item: The frame.
        clamped: Whether retargeting moved its parameters into the trained range.
        asked: What the lane was asked for, or why it was not.
        passed_over: Why frames before it were not begun, and how many.
    """

    item: StreamItem
    clamped: bool
    asked: AskedFrame | InvalidInputError
    passed_over: tuple[str, int]


class RenderSession:
    """State of one stream; its frames are rendered ahead of the one that is stored and sent.

    A live stream chooses its next frame when the picture of the last one has been taken over, so
    that a slow reader keeps at most one picture waiting. An ``every_frame`` stream has its next
    frame lie ready at the worker, beside live streams once its turn has come.
    """

    def __init__(
        self,
        config: rendering_service_pb2.RenderConfig,
        lane: Lane,
        answering: Answers,
        *,
        with_mask: bool,
    ) -> None:
        """Starts a stream.

        Args:
            config: What was granted.
            lane: Way to the worker.
            answering: Writes the answers.
            with_mask: Whether the worker must give the mask with each picture.
        """
        self._lane = lane
        self._answering = answering
        self._with_mask = with_mask
        self._deadline_s = seconds_from_duration(config.frame_deadline)
        self._live = config.frame_mode == image_pb2.FRAME_MODE_LATEST_FRAME
        same_person = config.driver == rendering_service_pb2.DRIVER_SAME_PERSON
        self._retargeter = Retargeter(
            ParameterStatistics.from_dict(lane.entry.manifest.statistics),
            "same_person" if same_person else "other_person",
            gains_from_message(config.gains),
            reach=lane.entry.manifest.reach,
        )
        self._room = 1 if self._live else IN_FLIGHT_LIMIT
        self._under_way: asyncio.Queue[FrameUnderWay | None] = asyncio.Queue()
        self._mailbox: FrameMailbox[StreamItem] | None = None
        self._error: Exception | None = None
        self._is_reader_slow = False
        self._lost_s: float | None = None  # since when its workers have died before each picture

    async def answers(
        self, mailbox: FrameMailbox[StreamItem]
    ) -> AsyncGenerator[rendering_service_pb2.StreamFramesResponse, None]:
        """Answers the frames of a mailbox, in order, until it is closed.

        Args:
            mailbox: What the caller sends.

        Yields:
            A picture or a failure for each frame that was not dropped.

        Raises:
            StyleAvatarError: What ends the stream: no messages of one, workers that die too often.
        """
        self._mailbox, mailbox.on_change = mailbox, self._begin_waiting
        self._begin_waiting()
        frame: FrameUnderWay | None = None
        try:
            while (frame := await self._under_way.get()) is not None:
                response = await self.finish(frame)
                if response is not None:
                    sending_s = time.perf_counter()
                    yield response
                    self._is_reader_slow = time.perf_counter() - sending_s > SLOW_SENDING_S
            if self._error is not None:
                raise self._error
        finally:
            self._answering.count()
            self._abandon(frame)

    def _begin_waiting(self) -> None:
        """Begins what waits in the mailbox while there is room; says when nothing more comes."""
        mailbox = self._mailbox
        if mailbox is None:
            return
        try:
            while self._room:
                item = mailbox.take()
                if item is None:
                    break
                passed_over = mailbox.take_superseded_count()
                self._under_way.put_nowait(self._begun(item, passed_over))
                self._room -= 1
        except Exception as error:  # raised where answers are awaited, after those before it
            self._error = error
        if (self._room and mailbox.is_over) or self._error is not None:
            self._mailbox = None
            self._under_way.put_nowait(None)

    def _abandon(self, last: FrameUnderWay | None) -> None:
        """Ends what is still under way when the stream ends early; nothing when it is over."""
        self._mailbox = None
        left = [last]
        while not self._under_way.empty():
            left.append(self._under_way.get_nowait())
        for frame in left:
            if frame is not None and isinstance(frame.asked, AskedFrame):
                frame.asked.abandon()

    def _begun(self, item: StreamItem, passed_over: int) -> FrameUnderWay:
        """Begins a frame; one that cannot be used is answered in its turn."""
        try:
            return self.begin(item, passed_over)
        except InvalidInputError as error:
            return FrameUnderWay(item, False, error, self._passed_over(passed_over))

    def begin(self, item: StreamItem, passed_over: int = 0) -> FrameUnderWay:
        """Retargets a frame and asks a worker for its picture.

        Args:
            item: The frame.
            passed_over: Frames before it that gave way to it.

        Returns:
            The frame under way.

        Raises:
            InvalidInputError: When its parameters cannot be used, or not for this avatar.
        """
        if item.set_neutral:
            self._retargeter.set_neutral()
        if item.error is not None:
            raise item.error
        if item.parameters is None:
            retargeted = self._retargeter.hold(item.capture_time_s)
        else:
            retargeted = self._retargeter.retarget(item.parameters)
        parameters = retargeted.parameters
        if parameters.frame_index != item.frame_index:  # a held face has that of the last one seen
            parameters = replace(parameters, frame_index=item.frame_index)
        asked = self._lane.ask(
            parameters,
            with_mask=self._with_mask,
            begin_s=self._lane.turn_s(),
            give_up_s=item.arrival_s + self._deadline_s if self._live else math.inf,
        )
        return FrameUnderWay(item, retargeted.clamped, asked, self._passed_over(passed_over))

    def _passed_over(self, count: int) -> tuple[str, int]:
        return "slow_reader" if self._is_reader_slow else "superseded", count

    async def finish(
        self, frame: FrameUnderWay
    ) -> rendering_service_pb2.StreamFramesResponse | None:
        """Waits for a picture and writes its answer.

        Args:
            frame: What ``begin`` gave.

        Returns:
            A picture or a failure; None when the stream is live and the frame was dropped because
            its worker died or was not free in time.

        Raises:
            StyleAvatarError: What ends the stream.
        """
        # Now, lest the answer before this frame tell of them.
        self._answering.drop(*frame.passed_over)
        try:
            try:
                picture = await self._picture(frame.asked)
            finally:
                self._room += 1
                self._begin_waiting()
        except WorkerLostError as error:
            now_s = time.monotonic()
            self._lost_s = self._lost_s or now_s
            if not self._live:
                raise
            if now_s - self._lost_s > WITHOUT_WORKER_S:
                raise no_worker() from error
            self._answering.drop("worker_lost", 1)
            return None
        except OverloadedError as error:
            if error.reason == FRAME_LATE:
                self._answering.drop("late", 1)
                return None
            if error.reason == OUT_OF_MEMORY and self._lane.is_loaded:
                return self._answering.failure(frame.item, error)
            raise
        except EngineUnavailableError:
            raise
        except (EngineError, InvalidInputError) as error:
            return self._answering.failure(frame.item, error)
        self._lost_s = None
        return await self._answering.picture(frame.item, picture, is_clamped=frame.clamped)

    async def _picture(self, asked: AskedFrame | InvalidInputError) -> RenderedPicture:
        if isinstance(asked, InvalidInputError):
            raise asked
        attempts = 1 if self._live else ATTEMPT_LIMIT
        for _ in range(attempts - 1):
            with contextlib.suppress(WorkerLostError):
                return await self._lane.picture(asked)
        return await self._lane.picture(asked)
