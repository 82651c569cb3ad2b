# SPDX-License-Identifier: Apache-2.0
"""Frames or faces of a driver in, pictures of an avatar out: a synchronous client over gRPC.

Example::

    with AvatarStreams("127.0.0.1:50051") as streams:
        for answer in streams.drive("avatar-1", frames, every_frame=True):
            answer.image  # (S, S, 3) uint8 RGB
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

import grpc
from styleavatar.v1 import image_pb2, rendering_service_pb2

from styleavatar_client.connection import Connection, Credentials
from styleavatar_client.errors import ClientError, grpc_errors, is_lost, retry_delay_s
from styleavatar_client.frames import (
    AvatarFrame,
    DriverFace,
    DriverFrame,
    MissingFace,
    PictureOptions,
    StoredFrame,
)
from styleavatar_client.rpcs import REENACT, STREAM_FRAMES, Rpc
from styleavatar_client.sending import FrameSource, Sent

__all__ = [
    "AvatarFrame",
    "AvatarStreams",
    "Credentials",
    "DriverFace",
    "DriverFrame",
    "MissingFace",
    "PictureOptions",
    "StoredFrame",
]

logger = logging.getLogger(__name__)

# Frames under way with `every_frame`: fills the pipeline of tracking and rendering, no more.
IN_FLIGHT_LIMIT = 4
RECONNECT_PAUSE_S = 0.2
AVATAR_HEADER = "x-avatar-id"


class AvatarStreams:
    """Streams to tracking services, or to rendering services if faces are sent.

    Closed at the end of a ``with`` block.
    """

    def __init__(
        self,
        address: str | Sequence[str] = "127.0.0.1:50051",
        *,
        credentials: Credentials | None = None,
        reconnect_timeout_s: float = 20.0,
    ) -> None:
        """Connects lazily.

        Args:
            address: ``host:port``, or those of several equal nodes.
            credentials: API key and TLS, where the services ask for them.
            reconnect_timeout_s: How long a stream that has begun looks for a node to go on with.
        """
        self._addresses = (address,) if isinstance(address, str) else tuple(address)
        self._credentials = credentials or Credentials()
        self._connections: set[Connection] = set()  # one for each stream
        self._reconnect_timeout_s = reconnect_timeout_s
        self._closed = threading.Event()
        self._beginning = threading.Lock()  # a call begins before the end and ends then, or never

    def __enter__(self) -> AvatarStreams:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all streams for good, with a ``ClientError`` where they are read."""
        with self._beginning:
            self._closed.set()
        for connection in tuple(self._connections):
            connection.close()

    def drive(
        self,
        avatar_id: str,
        frames: Iterable[DriverFrame | StoredFrame],
        *,
        every_frame: bool = False,
        same_person: bool = False,
        picture: PictureOptions | None = None,
        gains: Mapping[str, float] | None = None,
    ) -> Iterator[AvatarFrame]:
        """Drives an avatar with frames; a live source paces itself.

        When a node stops or dies, the stream goes on with the next one: live with the next frame,
        with ``every_frame`` from the first frame that was not answered. What the services had
        learned of the driver's neutral face begins anew there.

        Args:
            avatar_id: The avatar.
            frames: Taken from another thread, as fast as they come and can be sent.
            every_frame: Answer every frame in order, at whatever rate; else the newest wins.
            same_person: The driver is the avatar's person filmed as in the training video.
            picture: How the pictures are to be.
            gains: How much of the movement the avatar makes, from 0 to 3, by ``gaze``, ``blink``,
                ``mouth`` and ``head``; 1 where nothing is said.

        Yields:
            One answer for each frame that was not dropped.

        Raises:
            ClientError: When a service refuses, fails or cannot be reached.
            ValueError: A frame cannot be sent. An error of ``frames`` itself comes as it is.
        """
        config = _config(avatar_id, picture, gains, every_frame=every_frame, own=same_person)
        yield from self._stream(config, frames, REENACT)

    def render(
        self,
        avatar_id: str,
        faces: Iterable[DriverFace | MissingFace],
        *,
        every_frame: bool = False,
        same_person: bool = False,
        picture: PictureOptions | None = None,
        gains: Mapping[str, float] | None = None,
    ) -> Iterator[AvatarFrame]:
        """Drives an avatar, at rendering services, with faces that were tracked elsewhere.

        Takes its arguments, goes on at another node and fails as ``drive`` does.
        """
        config = _config(avatar_id, picture, gains, every_frame=every_frame, own=same_person)
        yield from self._stream(config, faces, STREAM_FRAMES)

    def _stream(
        self, config: rendering_service_pb2.RenderConfig, frames: Iterable[Sent], rpc: Rpc
    ) -> Iterator[AvatarFrame]:
        """Yields the answers of all nodes, one after the other, until all is answered."""
        patience = Patience(len(self._addresses), self._reconnect_timeout_s)
        # Of its own: to look for another node it is closed, and all calls on it end.
        connection = Connection(self._addresses, self._credentials)
        is_live = config.frame_mode == image_pb2.FRAME_MODE_LATEST_FRAME
        source = FrameSource(frames, None if is_live else IN_FLIGHT_LIMIT, rpc)
        self._connections.add(connection)
        try:
            while True:
                with grpc_errors(connection.address):
                    try:
                        for answer in self._one_call(connection, config, source, rpc):
                            patience.renew()
                            yield answer
                        if source.is_done:
                            break
                    except grpc.RpcError as error:
                        if not patience.allows(error):
                            raise
                        self._closed.wait(patience.pause_s(error))
                logger.info("going on elsewhere", extra={"left": connection.address})
                connection.turn()
                self._addresses = connection.addresses  # new streams begin where this one goes on
        finally:
            source.stop()
            self._connections.discard(connection)
            connection.close()
        if source.error is not None:
            raise source.error

    def _one_call(
        self,
        connection: Connection,
        config: rendering_service_pb2.RenderConfig,
        source: FrameSource,
        rpc: Rpc,
    ) -> Iterator[AvatarFrame]:
        """Yields the answers of one node until it has answered all that it was sent."""
        metadata = (*connection.metadata, (AVATAR_HEADER, config.avatar_id))
        ended = threading.Event()
        with self._beginning:
            if self._closed.is_set():
                raise ClientError("the streams were closed", code="CANCELLED")
            begin = rpc.open(connection.channel)
            call = begin(source.requests(config, ended), metadata=metadata)
        try:
            for response in call:
                if response.WhichOneof("response") == "config":
                    continue
                if response.frame.going_away:
                    ended.set()
                yield source.answer(response)
        finally:
            ended.set()
            call.cancel()


def _config(
    avatar_id: str,
    picture: PictureOptions | None,
    gains: Mapping[str, float] | None,
    *,
    every_frame: bool,
    own: bool,
) -> rendering_service_pb2.RenderConfig:
    modes = (image_pb2.FRAME_MODE_LATEST_FRAME, image_pb2.FRAME_MODE_EVERY_FRAME)
    drivers = (
        rendering_service_pb2.DRIVER_OTHER_PERSON,
        rendering_service_pb2.DRIVER_SAME_PERSON,
    )
    config = rendering_service_pb2.RenderConfig(
        avatar_id=avatar_id,
        frame_mode=modes[every_frame],
        driver=drivers[own],
        gains=rendering_service_pb2.DriverGains(**(gains or {})),
    )
    (picture or PictureOptions()).apply_to(config)
    return config


class Patience:
    """How long to look for another node: each once at first, for a while in mid-stream."""

    def __init__(self, address_count: int, timeout_s: float) -> None:
        self._address_count = address_count
        self._tries_left = address_count - 1
        self._full_count = 0
        self._timeout_s = timeout_s
        self._until_s: float | None = None
        self._has_begun = False

    def renew(self) -> None:
        """An answer came: the next failure begins a new search."""
        self._has_begun = True
        self._until_s = None

    def allows(self, error: grpc.RpcError) -> bool:
        """Says whether another node may do better."""
        is_full = _is_full(error)
        if not (is_lost(error) or (is_full and (self._has_begun or self._tries_left > 0))):
            return False
        if not self._has_begun:
            self._tries_left -= 1
            return self._tries_left >= 0
        now_s = time.monotonic()
        if self._until_s is None:
            self._until_s = now_s + self._timeout_s
        return now_s < self._until_s

    def pause_s(self, error: grpc.RpcError) -> float:
        """Says when to try the next node: as told by the last one when all of them were full."""
        self._full_count = self._full_count + 1 if _is_full(error) else 0
        if self._full_count == 0 or self._full_count % self._address_count:
            return RECONNECT_PAUSE_S
        return retry_delay_s(error) or RECONNECT_PAUSE_S


def _is_full(error: grpc.RpcError) -> bool:
    return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
