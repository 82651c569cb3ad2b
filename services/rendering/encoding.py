# SPDX-License-Identifier: Apache-2.0
"""Threads that store pictures, and which streams get their time.

They are apart from those that look into the store: large pictures hold up nobody's opening.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

import numpy as np
from styleavatar.v1 import image_pb2, rendering_service_pb2

from services.common.metrics import RenderingMetrics
from services.common.opening import retry_delay_s
from services.rendering.output import PictureWriter
from services.rendering.pool.frames import RenderedPicture
from styleavatar_core.cores import usable_core_count
from styleavatar_core.errors import OverloadedError
from styleavatar_core.types import ByteArray

ResultT = TypeVar("ResultT")

# The first picture loads a codec; of a video it is a key frame, after which the rate settles.
_MEASURED_COUNT = 3
# What a picture that is handed to a thread takes of one at least.
_LEAST_SHARE = 0.01
# Kinds of pictures whose time is remembered; callers choose sizes and qualities as they like.
_REMEMBERED_LIMIT = 1000


class Encoding:
    """As many threads as there are cores; a stream uses one at a time."""

    def __init__(self, metrics: RenderingMetrics, utilization_limit: float = 1.0) -> None:
        """Starts with no stream.

        Args:
            metrics: Where refusals are counted.
            utilization_limit: Share of the threads' time that streams may reserve.
        """
        count = usable_core_count()
        self._threads = ThreadPoolExecutor(count, "encoding")
        # Apart from those of open streams, and only one: who is not admitted yet takes little.
        self._measurer = ThreadPoolExecutor(1, "measuring")
        self._measuring = asyncio.Lock()
        self._known_s: dict[tuple[float, ...], float] = {}  # what a picture of a kind takes
        self._limit = utilization_limit * count
        self._metrics = metrics
        self._shares: list[float] = []

    async def run(self, work: Callable[..., ResultT], *arguments: object) -> ResultT:
        """Calls a function in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    @asynccontextmanager
    async def reserved(
        self,
        config: rendering_service_pb2.RenderConfig,
        background: ByteArray | None,
        side_px: int,
    ) -> AsyncIterator[None]:
        """Sets the time that a stream's pictures take aside for the context.

        It is measured with the first stream of a kind; one for which there is no room whatever it
        takes is refused without.

        Args:
            config: What was granted.
            background: (S, S, 3) uint8 RGB, for ``BACKGROUND_IMAGE``.
            side_px: Side of the avatar's pictures.

        Raises:
            OverloadedError: The others leave too little; a stream that is alone is always taken.
        """
        share = 0.0  # of a thread
        if not PictureWriter(config, background).is_quick(side_px):
            picture_s = await self._learn_picture_s(config, background, side_px)
            share = min(1.0, config.frames_per_second * picture_s)
            self._require_room(share)
        self._shares.append(share)
        try:
            yield
        finally:
            self._shares.remove(share)

    async def _learn_picture_s(
        self,
        config: rendering_service_pb2.RenderConfig,
        background: ByteArray | None,
        side_px: int,
    ) -> float:
        """Returns what one picture takes, as measured before, or now, one kind at a time."""
        kind = _kind(config, side_px)
        if kind not in self._known_s:
            self._require_room(_LEAST_SHARE)
            async with self._measuring:
                if kind not in self._known_s:
                    self._require_room(_LEAST_SHARE)  # others may have got it meanwhile
                    if len(self._known_s) >= _REMEMBERED_LIMIT:
                        self._known_s.clear()
                    self._known_s[kind] = await asyncio.get_running_loop().run_in_executor(
                        self._measurer, _picture_s, config, background, side_px
                    )
        return self._known_s[kind]

    def _require_room(self, share: float) -> None:
        others = sum(self._shares)
        if not others or others + share <= self._limit:
            return
        self._metrics.refused_streams.labels("capacity").inc()
        raise OverloadedError(
            "Storing the pictures of another stream would take time from those that are open; "
            "try again later, or ask for smaller pictures, for JPEG, or for fewer a second.",
            retry_delay_s=retry_delay_s(),
            reason="NO_CAPACITY",
        )


def _kind(config: rendering_service_pb2.RenderConfig, side_px: int) -> tuple[float, ...]:
    """Returns all that the time of a stream's pictures depends on."""
    return (
        side_px,
        config.crop.side,
        config.background,
        config.image_format,
        config.image_size_px,
        config.jpeg_quality,
        config.bits_per_second // config.frames_per_second,  # 0 but for video
    )


def _picture_s(
    config: rendering_service_pb2.RenderConfig, background: ByteArray | None, side_px: int
) -> float:
    """Returns the processor time that one picture takes to be stored, in seconds."""
    writer = PictureWriter(config, background)
    ramp = np.arange(side_px, dtype=np.uint8)[:, None, None] // 2
    grains = np.random.default_rng(0)
    mask = np.full((side_px, side_px), 128, np.uint8) if writer.needs_mask else None
    taken_s = []
    for _ in range(_MEASURED_COUNT):
        # No two are the same: a video's encoder would skip what has not changed.
        grain = grains.integers(0, 8, (side_px, side_px, 3), dtype=np.uint8)
        picture = RenderedPicture(ramp + grain, {}, mask)
        begun_s = time.thread_time()
        writer.write(picture, rendering_service_pb2.RenderedFrame().image)
        taken_s.append(time.thread_time() - begun_s)
    is_video = config.image_format == image_pb2.IMAGE_FORMAT_H264
    return taken_s[-1] if is_video else min(taken_s)
