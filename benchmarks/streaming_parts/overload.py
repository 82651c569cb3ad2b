# SPDX-License-Identifier: Apache-2.0
"""Three times the streams that are admitted: what it costs those who were, and the others' wait.

The others are in a process of their own, each with a connection of its own, and come again when
their refusal says so. They have the lowest priority, because callers do not run on the machine of
their service: they wait longer for it, and take less from it. Before and after, those who were
admitted are measured alone: a machine whose two measurements differ cannot tell smaller
differences.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from benchmarks.streaming_parts.callers import (
    LiveResult,
    live_stream,
    own_connection,
    run_streams,
)
from benchmarks.streaming_parts.capacity import interval_ms_p99

LOAD = 3
# Those who are to be served have begun when the others come.
LATER_S = 0.5
LOOK_S = 1.0


def measure_overload(
    address: str, avatar_id: str, seconds: float, frames_per_second: int, most: int
) -> dict[str, float]:
    """Offers three times what a service admits; looks at those admitted, alone and among others.

    Args:
        address: Of the service.
        avatar_id: Of all streams.
        seconds: Of each of three measurements: alone, among others, alone.
        frames_per_second: What each stream sends.
        most: Streams that are offered to see how many are admitted.

    Returns:
        Gaps of those admitted and their ratio, missing where one of them was refused after all, and
        the time that a refusal takes: with its connection the first time, over an open one later.
    """
    offered = run_streams(address, [avatar_id] * most, LOOK_S, frames_per_second)
    admitted = sum(result.refused_s is None for result in offered)
    names = [avatar_id] * admitted
    alone = run_streams(address, names, seconds, frames_per_second)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as others:
        others.submit(stand_back).result()  # its start would take time from the frames
        surplus = others.submit(
            insist, address, [avatar_id] * (LOAD - 1) * admitted, seconds, frames_per_second
        )
        crowded = run_streams(address, names, seconds, frames_per_second)
        tries = surplus.result()
    again = run_streams(address, names, seconds, frames_per_second)
    lost = sum(result.refused_s is not None for result in alone + crowded + again)
    figures = {
        "overload.admitted_streams": float(admitted),
        "overload.admitted_then_refused": float(lost),
    }
    if not lost:
        served = crowded + [result for result in tries if result.refused_s is None]
        figures |= {
            "overload.alone_ms_p99": interval_ms_p99(alone + again),
            "overload.alone_again_ms_p99_ratio": interval_ms_p99(again) / interval_ms_p99(alone),
            "overload.interframe_ms_p99": interval_ms_p99(served),
            "overload.interframe_ms_p99_ratio": interval_ms_p99(served)
            / interval_ms_p99(alone + again),
        }
    refusals_ms = [1e3 * one.refused_s for one in tries if one.refused_s is not None]
    if refusals_ms:
        figures |= {
            "overload.refusals": float(len(refusals_ms)),
            "overload.refusal_ms_p50": float(np.percentile(refusals_ms, 50)),
            "overload.refusal_ms_p99": float(np.percentile(refusals_ms, 99)),
            "overload.refusal_ms_max": max(refusals_ms),
        }
    return figures


def stand_back() -> None:
    """Gives this process the lowest priority, now that it has imported all that it needs."""
    os.nice(19)


def insist(
    address: str, avatar_ids: Sequence[str], seconds: float, frames_per_second: int
) -> list[LiveResult]:
    """Runs callers who come when others are served, and again whenever they are told to.

    Returns:
        All their tries: refusals, and streams of those who were served after all.
    """

    async def one(avatar_id: str) -> list[LiveResult]:
        tries: list[LiveResult] = []
        async with own_connection(address) as channel:
            end_s = asyncio.get_running_loop().time() + seconds - LATER_S
            left_s = seconds - LATER_S
            while left_s > 0:
                tries.append(await live_stream(channel, avatar_id, left_s, frames_per_second))
                if tries[-1].refused_s is None:
                    break
                await asyncio.sleep(min(left_s, tries[-1].retry_delay_s))
                left_s = end_s - asyncio.get_running_loop().time()
        return tries

    async def run() -> list[LiveResult]:
        await asyncio.sleep(LATER_S)
        return [result for tries in await asyncio.gather(*map(one, avatar_ids)) for result in tries]

    return asyncio.run(run())
