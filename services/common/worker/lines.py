# SPDX-License-Identifier: Apache-2.0
"""Messages off a socket, each handled in the turn of the event loop in which it arrived."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from services.common.worker.messages import LINE_BYTES_LIMIT


class LineProtocol(asyncio.Protocol):
    """Cuts what arrives into lines; one that cannot be used ends the connection.

    A ``StreamReader`` would do the same one task later, which a frame would wait for.
    """

    def __init__(self, on_line: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        """Makes a protocol for one connection.

        Args:
            on_line: Gets each line.
            on_end: Called once, when the connection is gone.
        """
        self._on_line = on_line
        self._on_end = on_end
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        """Handles the lines that are complete now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._on_line(line)
        if len(self._rest) > LINE_BYTES_LIMIT:
            raise ValueError("a message without an end")

    def connection_lost(self, error: Exception | None) -> None:
        """Says that nothing more comes."""
        self._on_end()
