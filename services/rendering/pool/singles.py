# SPDX-License-Identifier: Apache-2.0
"""Frames that are asked for one by one: they get of a worker's time what its streams leave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# One is rendered, the next waits; more are refused, lest they fill the worker's queue.
SINGLE_LIMIT = 2
# Of a worker whose streams need all of its time, single frames get this share.
LEAST_SHARE = 0.1


class SingleFrames:
    """The single frames of one worker: one at a time, with rests that leave streams their rate."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._count = 0
        self._rest_until_s = 0.0

    @property
    def has_room(self) -> bool:
        """Whether one more may come."""
        return self._count < SINGLE_LIMIT

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """Counts a frame that has found room."""
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1

    @asynccontextmanager
    async def turn(self, frame_s: float, utilization: float) -> AsyncIterator[None]:
        """Waits for the turn of a frame.

        Args:
            frame_s: What it takes, in seconds.
            utilization: Share of the worker's time that its streams have reserved.
        """
        async with self._turn:
            await asyncio.sleep(max(0.0, self._rest_until_s - time.monotonic()))
            try:
                yield
            finally:
                left = max(LEAST_SHARE, 1.0 - utilization)
                self._rest_until_s = time.monotonic() + frame_s * (1.0 / left - 1.0)
