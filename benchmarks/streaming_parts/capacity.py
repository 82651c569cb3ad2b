# SPDX-License-Identifier: Apache-2.0
"""Many live streams: how many hold their rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from rich.table import Table

from benchmarks.streaming_parts.callers import LiveResult, run_streams

INTERVAL_LIMIT_MS = 50.0
# So many streams are tried even if fewer did not hold: by how much they fail is of interest.
ALWAYS_COUNT = 4
# Three lost frames in a hundred are still the rate.
RATE_SHARE = 0.97


def interval_ms_p99(results: Sequence[LiveResult]) -> float:
    """99th percentile of the time between pictures, over all streams that began."""
    intervals = [step for result in results for step in result.intervals_ms()]
    return float(np.percentile(intervals, 99)) if intervals else float("inf")


def slowest_rate(results: Sequence[LiveResult]) -> float:
    """Pictures per second of the stream that got the fewest; 0 when one got none or was refused."""
    return min(result.pictures_per_second() for result in results)


def measure_capacity(
    address: str,
    avatar_ids: Sequence[str],
    seconds: float,
    frames_per_second: int,
    most: int,
    kind: str,
) -> dict[str, float]:
    """Doubles the streams, beyond four until one no longer gets its pictures as it sends them.

    Args:
        address: Of a service that admits any number.
        avatar_ids: Taken in turn.
        seconds: For each number of streams.
        frames_per_second: What each stream sends.
        most: Streams at which to stop.
        kind: Names the figures.

    Returns:
        Slowest rate and interval between pictures for each number, and the last number that held.
    """
    figures: dict[str, float] = {}
    held, count = 0, 1
    while count <= min(most, 2 * held if held >= ALWAYS_COUNT else ALWAYS_COUNT):
        names = [avatar_ids[index % len(avatar_ids)] for index in range(count)]
        results = run_streams(address, names, seconds, frames_per_second)
        rate, p99_ms = slowest_rate(results), interval_ms_p99(results)
        row = f"capacity.{kind}.{count}"
        figures[f"{row}.frames_per_second_min"] = rate
        if math.isfinite(p99_ms):
            figures[f"{row}.interframe_ms_p99"] = p99_ms
        held = count if held == count // 2 and holds(rate, p99_ms, frames_per_second) else held
        count *= 2
    return {**figures, f"streams_at_{frames_per_second}fps.{kind}": float(held)}


def capacity_table(figures: Mapping[str, float], frames_per_second: int) -> Table:
    """Sets what ``measure_capacity`` found in rows, one for each number of streams."""
    table = Table(title=f"streams at {frames_per_second} frames per second")
    for heading in ("preset", "avatars", "streams", "slowest", "gap p99, ms", "holds"):
        table.add_column(heading, justify="left" if heading in ("preset", "avatars") else "right")
    for name, rate in figures.items():
        _, preset, avatars, count, figure = name.split(".") if name.count(".") == 4 else [""] * 5
        if figure != "frames_per_second_min":
            continue
        row = f"capacity.{preset}.{avatars}.{count}"
        gap_ms = figures.get(f"{row}.interframe_ms_p99", math.inf)
        words = ("yes" if holds(rate, gap_ms, frames_per_second) else "no",)
        table.add_row(preset, avatars, count, f"{rate:.1f}", f"{gap_ms:.0f}", *words)
    return table


def holds(rate: float, gap_ms: float, frames_per_second: int) -> bool:
    """Whether streams get their pictures as they send faces.

    Args:
        rate: Pictures per second of the slowest.
        gap_ms: 99th percentile of the time between pictures.
        frames_per_second: What each sends.
    """
    return (
        rate >= RATE_SHARE * frames_per_second
        and gap_ms <= INTERVAL_LIMIT_MS * 30 / frames_per_second
    )
