# SPDX-License-Identifier: Apache-2.0
"""How many requests of a kind may be under way at once; more are refused, to try again later."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from styleavatar_core.errors import OverloadedError

# What is refused begins from its beginning: not too soon.
_RETRY_DELAY_S = 10.0


class Places:
    """One for each request of a kind that may be under way."""

    def __init__(self, count: int, *, taken_by: str, reason: str) -> None:
        """Begins with all of them free.

        Args:
            count: How many there are.
            taken_by: What is under way when there is none, as a sentence begins.
            reason: Stable UPPER_SNAKE word of the refusal.
        """
        self._count = count
        self._free_count = count
        self._taken_by = taken_by
        self._reason = reason

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Keeps a place for the context.

        Raises:
            OverloadedError: There is none.
        """
        if not self._free_count:
            raise OverloadedError(
                f"{self._taken_by} as this server takes at once ({self._count}); try again later",
                retry_delay_s=_RETRY_DELAY_S,
                reason=self._reason,
            )
        self._free_count -= 1
        try:
            yield
        finally:
            self._free_count += 1
