# SPDX-License-Identifier: Apache-2.0
"""Ends streams whose callers send or read nothing more: they hold a place that others wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from services.common.mailbox import FrameMailbox
from styleavatar_core.errors import ConflictError

ConfigT = TypeVar("ConfigT")

# Who opens a stream knows what he wants; meanwhile he holds a place of `stream_limit`.
CONFIG_TIMEOUT_S = 10.0


async def config_in_time(reading: Awaitable[ConfigT], idle_timeout_s: float) -> ConfigT:
    """Waits for the config of a stream.

    Args:
        reading: Gives it.
        idle_timeout_s: How long a stream may be silent; for its config it has 10 s at most.

    Raises:
        ConflictError: When it does not come.
    """
    timeout_s = min(CONFIG_TIMEOUT_S, idle_timeout_s)
    try:
        async with asyncio.timeout(timeout_s):
            return await reading
    except TimeoutError as error:
        raise _idle("no config came", timeout_s) from error


async def end_when_silent(mailbox: FrameMailbox[Any], idle_timeout_s: float) -> None:
    """Closes the mailbox of a stream once no frame has come for so long, unless it is closed."""
    left_s = idle_timeout_s - mailbox.idle_s
    while left_s > 0:
        await asyncio.sleep(left_s)
        left_s = idle_timeout_s - mailbox.idle_s
    if not mailbox.is_closed:
        await mailbox.close(_idle("no frame came", idle_timeout_s))


@asynccontextmanager
async def read_in_time(idle_timeout_s: float) -> AsyncIterator[None]:
    """Limits how long an answer that is written inside the block may wait for its reader.

    Args:
        idle_timeout_s: The limit.

    Raises:
        ConflictError: When it has passed.
    """
    try:
        async with asyncio.timeout(idle_timeout_s):
            yield
    except TimeoutError as error:
        raise _idle("no answer was read", idle_timeout_s) from error


def _idle(missed: str, timeout_s: float) -> ConflictError:
    return ConflictError(
        f"The stream was ended: {missed} for {timeout_s:g} s.", reason="IDLE_TIMEOUT"
    )
