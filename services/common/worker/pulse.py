# SPDX-License-Identifier: Apache-2.0
"""A worker's signs of life: when it was heard of last, and what memory it said it takes."""

from __future__ import annotations

import time

from services.common.worker.options import WorkerOptions


class Pulse:
    """What the parent knows of a child that lives.

    Args:
        options: How long it may be silent, and what it may take.

    Attributes:
        memory_bytes: What it took when it last said so.
    """

    def __init__(self, options: WorkerOptions) -> None:
        self.memory_bytes = 0
        self._options = options
        self._heard_s = time.monotonic()

    def hear(self) -> None:
        """Notes that the child has said something."""
        self._heard_s = time.monotonic()

    @property
    def silent_s(self) -> float:
        """Seconds since the child was heard of."""
        return time.monotonic() - self._heard_s

    def complaint(self, patience_s: float) -> str:
        """Says why the worker should be replaced though it lives; empty when it should not.

        Args:
            patience_s: The longest time that one of its commands may take.
        """
        limit = self._options.memory_limit_bytes
        if limit and self.memory_bytes > limit:
            return f"it takes {self.memory_bytes / 1e6:.0f} MB, more than {limit / 1e6:.0f} MB"
        may_be_silent_s = self._options.silence_timeout_s
        if patience_s > may_be_silent_s:
            may_be_silent_s = self._options.busy_silence_s
        silent_s = self.silent_s
        return f"it has been silent for {silent_s:.0f} s" if silent_s > may_be_silent_s else ""
