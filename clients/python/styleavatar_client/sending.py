# SPDX-License-Identifier: Apache-2.0
"""The sending half of a drive: outlives the calls that it feeds, one after the other."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from styleavatar.v1 import image_pb2, rendering_service_pb2

from styleavatar_client.frames import (
    AvatarFrame,
    DriverFace,
    DriverFrame,
    MissingFace,
    StoredFrame,
)
from styleavatar_client.rpcs import REENACT, Request, Response, Rpc

_POLL_S = 0.1

Sent = DriverFrame | StoredFrame | DriverFace | MissingFace


@dataclass(frozen=True, slots=True)
class _Ready:
    """A frame as it is sent.

    Attributes:
        frame_index: Of the frame.
        is_neutral: Whether the frame before is declared neutral.
        message: The frame's own.
    """

    frame_index: int
    is_neutral: bool
    message: Request


class FrameSource:
    """Frames of the driver, read in a thread of their own; what is not answered is sent again.

    With ``every_frame`` at most ``in_flight_limit`` frames are without an answer, and all of them
    are repeated to the next node. Of a live source at most one frame is lost with a call.
    """

    def __init__(
        self, frames: Iterable[Sent], in_flight_limit: int | None, rpc: Rpc = REENACT
    ) -> None:
        """Starts to read.

        Args:
            frames: Taken as fast as they come and can be sent.
            in_flight_limit: For ``every_frame``; None for a live source.
            rpc: The call that they are sent with.
        """
        self._rpc = rpc
        self.error: Exception | None = None
        self._frames = frames
        self._room = threading.Semaphore(in_flight_limit) if in_flight_limit else None
        self._waiting: queue.Queue[_Ready] = queue.Queue(maxsize=1)
        self._handed_back: deque[_Ready] = deque()
        self._lock = threading.Lock()  # a frame belongs to one call, or to none that has ended
        self._unanswered: dict[int, _Ready] = {}
        self._sent_s: dict[int, float] = {}
        self._stopped = threading.Event()
        self._read_all = threading.Event()
        threading.Thread(target=self._read, name="driver frames", daemon=True).start()

    @property
    def is_done(self) -> bool:
        """Whether every frame was read, sent and, where that matters, answered."""
        left = self._waiting.qsize() or self._handed_back or self._unanswered
        return self._read_all.is_set() and not left

    def stop(self) -> None:
        """Ends the reading."""
        self._stopped.set()

    def requests(
        self, config: rendering_service_pb2.RenderConfig, ended: threading.Event
    ) -> Iterator[Request]:
        """Yields the messages of one call.

        Args:
            config: The first message.
            ended: Set when this call must take no more frames.
        """
        yield self._rpc.config(config)
        with self._lock:
            again = list(self._unanswered.values())
        for sent in again:
            yield from self._messages(sent)
        while not (ended.is_set() or self._stopped.is_set()):
            frame = self._take(ended)
            if frame is not None:
                yield from self._messages(frame)
            elif self._read_all.is_set() and not (self._handed_back or self._waiting.qsize()):
                return

    def _take(self, ended: threading.Event) -> _Ready | None:
        """Takes the next frame for a call; one that came too late for it is for the next call."""
        try:
            frame = (
                self._handed_back.popleft()
                if self._handed_back
                else self._waiting.get(timeout=_POLL_S)
            )
        except (queue.Empty, IndexError):
            return None
        with self._lock:
            if ended.is_set():
                self._handed_back.append(frame)
                return None
            if self._room is not None:
                self._unanswered[frame.frame_index] = frame
        return frame

    def _messages(self, frame: _Ready) -> Iterator[Request]:
        if frame.is_neutral:
            yield self._rpc.neutral()
        self._sent_s[frame.frame_index] = time.perf_counter()
        yield frame.message

    def answer(self, response: Response) -> AvatarFrame:
        """Reads an answer and makes room for another frame."""
        has_failed = response.HasField("failure")
        index = (response.failure if has_failed else response.frame).frame_index
        now_s = time.perf_counter()
        latency_s = now_s - self._sent_s.pop(index, now_s)
        for stale in [other for other in list(self._sent_s) if other < index]:
            del self._sent_s[stale]  # dropped: no answer will come
        if self._room is not None and self._unanswered.pop(index, None) is not None:
            self._room.release()
        if has_failed:
            return _failed_frame(response.failure, latency_s)
        return _avatar_frame(response.frame, latency_s)

    def _read(self) -> None:
        try:
            for frame in self._frames:
                if not self._offer(self._ready(frame)):
                    return
        except Exception as error:  # the source's or a frame's: raised where the caller is
            self.error = error
        finally:
            self._read_all.set()

    def _ready(self, frame: Sent) -> _Ready:
        """Builds a frame's message; in gRPC's thread an error would look like a lost node."""
        try:
            return _Ready(frame.frame_index, frame.is_neutral, self._rpc.frame(frame))
        except Exception as error:
            raise ValueError(f"frame {frame.frame_index} cannot be sent: {error}") from error

    def _offer(self, frame: _Ready) -> bool:
        """Leaves a frame for the present call; False when nobody wants any more."""
        while self._room is not None and not self._room.acquire(timeout=_POLL_S):
            if self._stopped.is_set():
                return False
        while not self._stopped.is_set():
            try:
                self._waiting.put(frame, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False


def _failed_frame(failure: image_pb2.FrameFailure, latency_s: float) -> AvatarFrame:
    return AvatarFrame(
        frame_index=failure.frame_index,
        capture_time_s=failure.capture_offset.ToNanoseconds() / 1e9,
        image=None,
        latency_s=latency_s,
        dropped_count=sum(count for _, count in failure.dropped.ListFields()),
        failure=failure.message,
        reason=failure.reason,
    )


def _avatar_frame(frame: rendering_service_pb2.RenderedFrame, latency_s: float) -> AvatarFrame:
    image, data = None, frame.image.data
    if frame.image.format == image_pb2.IMAGE_FORMAT_RAW_RGB:
        shape = (frame.image.height_px, frame.image.width_px, 3)
        image, data = np.frombuffer(data, np.uint8).reshape(shape), b""
    return AvatarFrame(
        frame_index=frame.frame_index,
        capture_time_s=frame.capture_offset.ToNanoseconds() / 1e9,
        image=image,
        latency_s=latency_s,
        synthetic=frame.synthetic,
        clamped=frame.clamped,
        held=frame.held,
        dropped_count=sum(count for _, count in frame.dropped.ListFields()),
        stage_ms={
            stage.name: duration.ToNanoseconds() / 1e6
            for stage, duration in frame.stage_durations.ListFields()
        },
        data=data,
        key_frame=frame.key_frame,
    )
