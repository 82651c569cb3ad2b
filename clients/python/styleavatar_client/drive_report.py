# SPDX-License-Identifier: Apache-2.0
"""What a drive was like: how many pictures, how fast, how late."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import numpy as np

from styleavatar_client.frames import AvatarFrame


class DriveReport:
    """Collects answers and sums them up."""

    def __init__(self) -> None:
        self._latencies_ms: list[float] = []
        self._counts: Counter[str] = Counter()
        self._first_s = 0.0
        self._last_s = 0.0

    def add(self, answer: AvatarFrame) -> None:
        """Counts one answer, now."""
        self._last_s = time.perf_counter()
        if not self._counts["answers"]:
            self._first_s = self._last_s
        self._counts["answers"] += 1
        self._counts["failed"] += answer.image is None
        self._counts["clamped"] += answer.clamped
        self._counts["held"] += answer.held
        self._counts["dropped"] += answer.dropped_count
        self._latencies_ms.append(1e3 * answer.latency_s)

    def figures(self) -> dict[str, Any]:
        """Returns counts, rate and latency; what could not be measured is missing."""
        figures: dict[str, Any] = {
            f"{name}_count": self._counts[name]
            for name in ("answers", "failed", "clamped", "held", "dropped")
        }
        if self._counts["answers"] > 1:
            elapsed_s = self._last_s - self._first_s
            figures["frames_per_second"] = (self._counts["answers"] - 1) / elapsed_s
        if self._latencies_ms:
            for percent in (50, 95, 99):
                figures[f"latency_ms_p{percent}"] = float(
                    np.percentile(self._latencies_ms, percent)
                )
        return {
            name: round(value, 2) if isinstance(value, float) else value
            for name, value in figures.items()
        }

    def lines(self) -> list[str]:
        """Returns the figures as sentences for people."""
        figures = self.figures()
        lines = [
            f"{figures['answers_count']} pictures"
            f" ({figures['held_count']} held, {figures['clamped_count']} clamped,"
            f" {figures['failed_count']} failed, {figures['dropped_count']} frames dropped)"
        ]
        if "frames_per_second" in figures:
            lines.append(f"{figures['frames_per_second']:.1f} frames per second")
        if "latency_ms_p50" in figures:
            percentiles = (f"p{p} {figures[f'latency_ms_p{p}']:.1f} ms" for p in (50, 95, 99))
            lines.append("latency " + ", ".join(percentiles))
        return lines
