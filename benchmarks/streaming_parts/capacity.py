# SPDX-License-Identifier: Apache-2.0
"""Many live streams: how many hold their rate, and what those beyond cost them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import numpy as np

from benchmarks.streaming_parts.service import LiveResult, live_stream

INTERVAL_LIMIT_MS = 50.0
# Three lost frames in a hundred are still the rate.
RATE_SHARE = 0.97


def run_streams(
    address: str, avatar_ids: Sequence[str], seconds: float, frames_per_second: int
) -> list[LiveResult]:
    """Runs one live stream for each id, all at once."""

    async def run() -> list[LiveResult]:
        streams = (live_stream(address, name, seconds, frames_per_second) for name in avatar_ids)
        return await asyncio.gather(*streams)

    return asyncio.run(run())


def interval_ms_p99(results: Sequence[LiveResult]) -> float:
    """99th percentile of the time between pictures, over all streams that were served."""
    intervals = [step for result in results for step in result.intervals_ms()]
    return float(np.percentile(intervals, 99)) if intervals else float("inf")


def slowest_rate(results: Sequence[LiveResult]) -> float:
    """Pictures per second of the stream that got the fewest; 0 when one got none."""
    steps = [result.intervals_ms() for result in results]
    return min(1e3 * len(mine) / sum(mine) if mine else 0.0 for mine in steps)


def measure_capacity(
    address: str,
    avatar_ids: Sequence[str],
    seconds: float,
    frames_per_second: int,
    most: int,
    kind: str,
) -> dict[str, float]:
    """Doubles the streams until one no longer gets its pictures as it sends them.

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
    held, count, does_hold = 0, 1, True
    while does_hold and count <= most:
        names = [avatar_ids[index % len(avatar_ids)] for index in range(count)]
        results = run_streams(address, names, seconds, frames_per_second)
        rate, p99_ms = slowest_rate(results), interval_ms_p99(results)
        does_hold = (
            rate >= RATE_SHARE * frames_per_second
            and p99_ms <= INTERVAL_LIMIT_MS * 30 / frames_per_second
        )
        row = f"capacity.{kind}.{count}"
        figures[f"{row}.frames_per_second_min"] = rate
        if math.isfinite(p99_ms):
            figures[f"{row}.interframe_ms_p99"] = p99_ms
        held, count = count if does_hold else held, 2 * count
    return {**figures, f"streams_at_{frames_per_second}fps.{kind}": float(held)}


def measure_overload(
    address: str, avatar_id: str, seconds: float, frames_per_second: int, most: int
) -> dict[str, float]:
    """Offers three times what a service admits, and looks at those that were accepted before."""
    offered = run_streams(address, [avatar_id] * most, seconds, frames_per_second)
    admitted = sum(result.refused_s is None for result in offered)
    alone = run_streams(address, [avatar_id] * admitted, seconds, frames_per_second)
    crowded = run_streams(address, [avatar_id] * (3 * admitted), seconds, frames_per_second)
    refusals = [result.refused_s for result in crowded if result.refused_s is not None]
    figures = {
        "overload.admitted_streams": float(admitted),
        "overload.interframe_ms_p99_ratio": interval_ms_p99(crowded) / interval_ms_p99(alone),
    }
    if refusals:
        figures["overload.refusal_ms_p99"] = 1e3 * float(np.percentile(refusals, 99))
    return figures
