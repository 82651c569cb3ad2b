# SPDX-License-Identifier: Apache-2.0
"""What waits between a stream's reader and its work: the newest frame only, or a few in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Generic, TypeVar

from styleavatar_core.errors import InvalidInputError

logger = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")


class FrameMailbox(Generic[ItemT]):
    """A bounded box for one reader and one taker, who waits for frames or is called for each.

    Attributes:
        on_change: Called when a frame was left and when the box was closed, in the same turn of the
            event loop: a taker that waited would come one turn later.
    """

    def __init__(
        self, *, latest_only: bool, merge: Callable[[ItemT, ItemT], ItemT], capacity: int = 4
    ) -> None:
        """Makes an empty box.

        Args:
            latest_only: Whether a new frame takes the place of one that still waits.
            merge: Joins the frame that gives way and its successor, so that nothing but the frame
                is lost.
            capacity: When not ``latest_only``: frames that may wait; ``put`` returns when no more
                do, which leaves the rest to the flow control of the stream.
        """
        self.on_change: Callable[[], None] = lambda: None
        self._latest_only = latest_only
        self._merge = merge
        self._capacity = capacity
        self._items: deque[ItemT] = deque()
        self._changed = asyncio.Event()  # set by each change, cleared by who waits for one
        self._closed = False
        self._error: Exception | None = None
        self._superseded_count = 0
        self._put_s = time.monotonic()

    @property
    def idle_s(self) -> float:
        """Seconds since the last frame came."""
        return time.monotonic() - self._put_s

    @property
    def is_closed(self) -> bool:
        """Whether nothing more will come."""
        return self._closed

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to take, and nothing more will come."""
        return self._closed and not self._items

    @property
    def waiting_count(self) -> int:
        """Frames that nobody has taken yet."""
        return len(self._items)

    async def put(self, item: ItemT) -> None:
        """Leaves a frame; one that comes after the closing is not taken.

        It lies in the box before there is room for the next: a closing does not lose it.
        """
        self._put_s = time.monotonic()
        if self._closed:
            return
        if self._latest_only and self._items:
            item = self._merge(self._items.pop(), item)
            self._superseded_count += 1
        self._items.append(item)
        self._changed.set()
        self.on_change()
        while not (self._latest_only or self._closed) and len(self._items) > self._capacity:
            await self._change()

    async def close(self, error: Exception | None = None) -> None:
        """Says that no more frames come; ``error`` is raised to the taker after the last one.

        Of several errors the first counts, also when the stream's end is read after it.
        """
        self._closed = True
        self._error = self._error or error
        self._changed.set()
        self.on_change()

    async def get(self) -> ItemT | None:
        """Takes the next frame, or None after the last."""
        while not self._items and not self._closed:
            await self._change()
        return self.take()

    def take(self) -> ItemT | None:
        """Takes the next frame; None when none waits, or after the last."""
        if self._items:
            item = self._items.popleft()
            self._changed.set()
            return item
        if self._error is not None:
            raise self._error
        return None

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def take_superseded_count(self) -> int:
        """Returns how many frames gave way since the last call."""
        count, self._superseded_count = self._superseded_count, 0
        return count


@contextlib.asynccontextmanager
async def closing_mailbox(mailbox: FrameMailbox[Any]) -> AsyncIterator[None]:
    """Closes a mailbox when the reading of a stream inside the block ends, however it ends.

    Unusable input is passed on to the answering side; of a broken transport it only sees the end.
    """
    try:
        yield
    except InvalidInputError as error:
        await mailbox.close(error)
    except Exception as error:
        logger.debug("reading a stream ended", exc_info=error)
        await mailbox.close()
    else:
        await mailbox.close()


@contextlib.asynccontextmanager
async def running(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs coroutines beside the block, and ends them with it; tells the log of one that fails."""
    tasks = [asyncio.create_task(coroutine) for coroutine in work]
    for task in tasks:
        task.add_done_callback(_tell_of_failure)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _tell_of_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("what ran beside has failed", exc_info=error)
