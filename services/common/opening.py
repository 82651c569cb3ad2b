# SPDX-License-Identifier: Apache-2.0
"""How a stream begins: it finds a free place, and says first what it wants."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import Gauge

from services.common.silence import config_in_time
from styleavatar_core.errors import InvalidInputError, OverloadedError

# When those who are refused may try again: each another time, lest they all come back at once.
RETRY_DELAYS_S = (1.5, 3.0)


def retry_delay_s() -> float:
    """Says in how many seconds one who is refused should try again."""
    return random.uniform(*RETRY_DELAYS_S)


class StreamLimit:
    """Counts the open streams of a service, and refuses those beyond its limit."""

    def __init__(self, limit: int, on_refusal: Callable[[], None] = lambda: None) -> None:
        """Starts with none.

        Args:
            limit: Open streams; more are refused.
            on_refusal: Called for each that is refused.
        """
        self._limit = limit
        self._on_refusal = on_refusal
        self._count = 0

    @contextmanager
    def admitted(self, gauge: Gauge) -> Iterator[None]:
        """Counts a stream for the context.

        Args:
            gauge: Of open streams.

        Raises:
            OverloadedError: When all places are taken.
        """
        if self._count >= self._limit:
            self._on_refusal()
            raise OverloadedError(
                f"All {self._limit} streams of this service are in use; try again later.",
                retry_delay_s=retry_delay_s(),
            )
        self._count += 1
        gauge.inc()
        try:
            yield
        finally:
            self._count -= 1
            gauge.dec()


async def first_config(requests: AsyncIterator[Any], idle_timeout_s: float) -> Any:
    """Reads the first message of a stream, whose messages have a oneof ``request``.

    Args:
        requests: The messages.
        idle_timeout_s: How long the stream may be silent.

    Returns:
        The config, of the stream's own type.

    Raises:
        InvalidInputError: When it is no config.
        ConflictError: When it does not come.
    """
    return await config_in_time(_config(requests), idle_timeout_s)


async def _config(requests: AsyncIterator[Any]) -> Any:
    async for request in requests:
        if request.WhichOneof("request") != "config":
            break
        return request.config
    raise InvalidInputError(
        "The first message of a stream must be its config.", reason="CONFIG_MISSING"
    )
