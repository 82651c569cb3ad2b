# SPDX-License-Identifier: Apache-2.0
"""When frames begin that can wait: beside live streams they get of a worker what those leave."""

from __future__ import annotations


class Pace:
    """Gives times to begin, each as long after the last as that one takes its share of the time."""

    def __init__(self) -> None:
        self._free_s = 0.0

    def take(self, now_s: float, interval_s: float) -> float:
        """Returns when a frame may begin.

        Args:
            now_s: ``time.perf_counter()``.
            interval_s: How much later the next one may begin.
        """
        due_s = max(now_s, self._free_s)
        self._free_s = due_s + interval_s
        return due_s
