# SPDX-License-Identifier: Apache-2.0
"""Killed workers: how long until the next good frame, and what the workers take."""

from __future__ import annotations

import signal
import time

from benchmarks.streaming_parts.callers import Stream
from benchmarks.streaming_parts.service import RunningService, memory_mb


def measure_recovery(service: RunningService, avatar_id: str, count: int) -> float:
    """Kills the worker under a stream, again and again; the longest wait for a good frame, s.

    Where a worker stands by, each blow waits until it does.
    """
    stream = Stream(service.channel, avatar_id)
    waits_s = []
    for index in range(count):
        stream.send(2 * index)
        stream.receive()
        service.wait_for_standby()
        service.workers()[0].send_signal(signal.SIGKILL)
        begun = time.perf_counter()
        stream.send(2 * index + 1)
        if stream.receive().frame_index != 2 * index + 1:
            raise RuntimeError("a frame of another index was answered")
        waits_s.append(time.perf_counter() - begun)
    stream.close()
    return max(waits_s)


def measure_memory(service: RunningService, avatar_id: str) -> dict[str, float]:
    """Memory of the front, of the worker that serves, and of the one that stands by."""
    service.wait_for_standby()
    stream = Stream(service.channel, avatar_id)
    stream.send(0)
    stream.receive()
    stream.close()
    serving, standby = service.workers()[:2]
    return {
        "memory.front_mb": memory_mb(service.process),
        "memory.serving_worker_mb": memory_mb(serving),
        "memory.standby_worker_mb": memory_mb(standby),
    }
