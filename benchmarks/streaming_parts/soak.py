# SPDX-License-Identifier: Apache-2.0
"""Many frames as fast as they go: is the memory of every process flat, what is left behind?"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import AbstractContextManager
from itertools import cycle

import numpy as np
import psutil

from benchmarks.streaming_parts.bench import Progress
from benchmarks.streaming_parts.callers import Stream
from benchmarks.streaming_parts.service import RunningService, memory_mb

# Enough that the worker is never without a frame.
STREAM_COUNT = 4
IN_FLIGHT = 2
# A stream ends after so many frames and another takes its place: opening must not leak either.
STREAM_FRAMES = 500
SAMPLE_COUNT = 200
# The first frames fill caches.
WARM_UP_SHARE = 0.25
SHARED_MEMORY = "/dev/shm"


class Watched:
    """What processes take while frames go by."""

    def __init__(self, processes: dict[str, psutil.Process]) -> None:
        self._processes = processes
        self._marks: list[int] = []
        self._memory_mb: dict[str, list[float]] = {name: [] for name in processes}
        self._descriptors: dict[str, list[int]] = {name: [] for name in processes}
        self._cpu_s: dict[str, list[float]] = {name: [] for name in processes}

    def look(self, done: int) -> None:
        """Notes how it is after so many frames."""
        self._marks.append(done)
        for name, process in self._processes.items():
            self._memory_mb[name].append(memory_mb(process))
            self._descriptors[name].append(process.num_fds())
            times = process.cpu_times()
            self._cpu_s[name].append(times.user + times.system)

    def words(self) -> str:
        """Says how it was when somebody looked last."""
        memory = (f", {name} {values[-1]:.1f} MB" for name, values in self._memory_mb.items())
        return "".join(memory)

    def figures(self) -> dict[str, float]:
        """Says what grew after the warm-up: slope of a line through the samples, and the ends.

        And what processor time a frame takes, which is what bounds the rate.
        """
        figures: dict[str, float] = {}
        first = int(WARM_UP_SHARE * len(self._marks))
        frame_count = self._marks[-1] - self._marks[first]
        for name, values in self._memory_mb.items():
            slope = np.polyfit(self._marks[first:], values[first:], 1)[0]
            grown = self._descriptors[name][-1] - self._descriptors[name][first]
            cpu_s = self._cpu_s[name][-1] - self._cpu_s[name][first]
            figures |= {
                f"soak.{name}_mb_per_10000_frames": 1e4 * float(slope),
                f"soak.{name}_mb_after_warm_up": values[first],
                f"soak.{name}_mb": values[-1],
                f"soak.{name}_descriptors_grown": float(grown),
                f"soak.{name}_cpu_ms_per_frame": 1e3 * cpu_s / frame_count,
            }
        return figures


def measure_soak(
    running: AbstractContextManager[RunningService], avatar_id: str, count: int
) -> dict[str, float]:
    """Renders many frames; memory slope of every process, what is left when the service is gone.

    Args:
        running: A service with one worker that stands by; ended here.
        avatar_id: Of all streams.
        count: Frames of all streams together.
    """
    shared = _shared_memory()
    with running as service:
        service.wait_for_standby()
        *serving, standby = service.workers()
        workers = {f"worker_{number}": worker for number, worker in enumerate(serving, 1)}
        processes = {"front": service.process, **workers, "standby": standby}
        watched = Watched({**processes, "caller": psutil.Process()})
        begun_s = time.perf_counter()
        _stream_frames(service, avatar_id, count, watched)
        frames_per_second = count / (time.perf_counter() - begun_s)
        figures = watched.figures()
    left = sum(process.is_running() for process in processes.values())
    return {
        "soak.frames": float(count),
        "soak.frames_per_second": frames_per_second,
        **figures,
        "soak.processes_left": float(left),
        "soak.segments_left": float(len(_shared_memory() - shared)),
        "soak.files_left": float(sum(path.is_file() for path in service.scratch.rglob("*"))),
    }


def _stream_frames(service: RunningService, avatar_id: str, count: int, watched: Watched) -> None:
    progress = Progress("soak", count)
    every = max(1, count // SAMPLE_COUNT)
    streams = [_one_after_the_other(service, avatar_id) for _ in range(STREAM_COUNT)]
    for done, stream in zip(range(1, count + 1), cycle(streams)):
        next(stream)
        if done % every == 0:
            watched.look(done)
            progress.tell(done, watched.words())
    for stream in streams:
        stream.close()


def _one_after_the_other(service: RunningService, avatar_id: str) -> Generator[None, None, None]:
    """Yields after each frame of a stream, and goes on with another when that one has ended."""
    while True:
        # What it asks for is little, so that all are admitted; what it gets is what there is.
        stream = Stream(service.channel, avatar_id, frames_per_second=1)
        try:
            for index in range(IN_FLIGHT):
                stream.send(index)
            for index in range(STREAM_FRAMES):
                if stream.receive().frame_index != index:
                    raise RuntimeError("a frame of another index was answered")
                if index + IN_FLIGHT < STREAM_FRAMES:
                    stream.send(index + IN_FLIGHT)
                yield
        finally:
            stream.close()


def _shared_memory() -> set[str]:
    return set(os.listdir(SHARED_MEMORY))  # noqa: PTH208 - names of the kernel's folder
