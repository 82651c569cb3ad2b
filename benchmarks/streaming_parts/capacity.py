# SPDX-License-Identifier: Apache-2.0
"""Many live streams: how many hold their rate, and what those beyond cost them."""

from __future__ import annotations

import asyncio
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


def holds_rate(results: Sequence[LiveResult], frames_per_second: int) -> bool:
    """Whether every stream got its pictures as it sent them."""
    rates = []
    for result in results:
        steps = result.intervals_ms()
        rates.append(1e3 * len(steps) / sum(steps) if steps else 0.0)
    on_time = interval_ms_p99(results) <= INTERVAL_LIMIT_MS * 30 / frames_per_second
    return min(rates) >= RATE_SHARE * frames_per_second and on_time


def measure_capacity(
    address: str, avatar_ids: Sequence[str], seconds: float, frames_per_second: int, most: int
) -> int:
    """Doubles the streams until one no longer holds its rate.

    Args:
        address: Of a service that admits any number.
        avatar_ids: Taken in turn.
        seconds: For each number of streams.
        frames_per_second: What each stream sends.
        most: Streams at which to stop.

    Returns:
        The last number that held.
    """
    held, count = 0, 1
    while count <= most:
        names = [avatar_ids[index % len(avatar_ids)] for index in range(count)]
        if not holds_rate(
            run_streams(address, names, seconds, frames_per_second), frames_per_second
        ):
            break
        held, count = count, 2 * count
    return held


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
