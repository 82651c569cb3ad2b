# SPDX-License-Identifier: Apache-2.0
"""Killed workers, garbage, and many frames: what a service does about them."""

from __future__ import annotations

import os
import random
import signal
import time

import grpc
import numpy as np
import psutil

from benchmarks.streaming_parts.service import (
    RunningService,
    Stream,
    config_request,
    face_request,
)

METHOD = "/styleavatar.v1.RenderingService/StreamFrames"
STANDBY_TIMEOUT_S = 120.0
# Enough that the worker is never without a frame.
SOAK_STREAMS = 4
SOAK_IN_FLIGHT = 2


def measure_recovery(service: RunningService, avatar_id: str, count: int) -> float:
    """Kills the worker under a stream, again and again; the longest wait for a good frame, s.

    Where a worker stands by, each blow waits until it does.
    """
    stream = Stream(service.channel, avatar_id)
    waits_s = []
    for index in range(count):
        stream.send(2 * index)
        stream.receive()
        service.wait_for_standby(STANDBY_TIMEOUT_S)
        service.workers()[0].send_signal(signal.SIGKILL)
        begun = time.perf_counter()
        stream.send(2 * index + 1)
        if stream.receive().frame_index != 2 * index + 1:
            raise RuntimeError("a frame of another index was answered")
        waits_s.append(time.perf_counter() - begun)
    stream.close()
    return max(waits_s)


def send_garbage(service: RunningService, avatar_id: str, count: int) -> dict[str, float]:
    """Sends malformed streams; counts those refused, and workers that are gone afterwards."""
    call = service.channel.stream_stream(METHOD)
    before = {worker.pid for worker in service.workers()}
    chance = random.Random(0)
    refused = 0
    for index in range(count):
        try:
            list(call(iter(_garbage(chance, index, avatar_id)), timeout=30))
        except grpc.RpcError as error:
            codes = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
            refused += error.code() in codes
    lost = before - {worker.pid for worker in service.workers()}
    return {
        "malformed.messages": float(count),
        "malformed.refused_percent": 100 * refused / count,
        "malformed.workers_lost": float(len(lost)),
    }


def _garbage(chance: random.Random, index: int, avatar_id: str) -> list[bytes]:
    start = config_request(avatar_id)
    face = face_request(index)
    kind = index % 5
    if kind == 0:
        face.parameters.scale = chance.choice([float("nan"), float("inf"), -1.0, 0.0, 1e30])
    elif kind == 1:
        del face.parameters.expression[chance.randrange(52) :]
    elif kind == 2:
        start.config.avatar_id = "".join(chance.choices("../\x00abcÄ", k=chance.randrange(60)))
    elif kind == 3:
        start.config.image_size_px = chance.choice([-1, 1, 1 << 30])
    else:
        return [start.SerializeToString(), b"\xff" + chance.randbytes(chance.randrange(1, 2000))]
    return [start.SerializeToString(), face.SerializeToString()]


def measure_soak(service: RunningService, avatar_id: str, count: int) -> dict[str, float]:
    """Renders many frames as fast as it goes; memory slope of every process, what is left behind.

    Args:
        service: With one worker.
        avatar_id: Of all streams.
        count: Frames of all streams together.
    """
    shared = set(os.listdir("/dev/shm"))  # noqa: PTH208 - names of the kernel's folder
    # What they ask for is little, so that all are admitted; what they get is what there is.
    streams = [Stream(service.channel, avatar_id, frames_per_second=1) for _ in range(SOAK_STREAMS)]
    workers = dict(zip(("worker", "standby"), service.workers(), strict=False))
    processes = {"front": service.process, **workers}
    samples: dict[str, list[float]] = {name: [] for name in processes}
    marks: list[int] = []
    every = max(1, count // 50)
    for stream in SOAK_IN_FLIGHT * streams:
        stream.send(0)
    begun = time.perf_counter()
    for index in range(count):
        stream = streams[index % SOAK_STREAMS]
        stream.receive()
        stream.send(index)
        if index % every == 0:
            marks.append(index)
            for name, process in processes.items():
                samples[name].append(_memory_mb(process))
    figures = {
        "soak.frames": float(count),
        "soak.frames_per_second": count / (time.perf_counter() - begun),
    }
    for stream in streams:
        stream.close()
    half = len(marks) // 2  # the first frames fill caches
    for name, values in samples.items():
        slope = np.polyfit(marks[half:], values[half:], 1)[0]
        figures[f"soak.{name}_mb_per_100000_frames"] = float(slope) * 1e5
        figures[f"soak.{name}_mb"] = values[-1]
    figures["soak.segments_left"] = float(len(set(os.listdir("/dev/shm")) - shared))  # noqa: PTH208
    return figures


def _memory_mb(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 1e6


def measure_memory(service: RunningService) -> dict[str, float]:
    """Memory of the worker that serves, and of the one that stands by."""
    service.wait_for_standby(STANDBY_TIMEOUT_S)
    serving, standby = service.workers()[:2]
    return {
        "memory.serving_worker_mb": _memory_mb(serving),
        "memory.standby_worker_mb": _memory_mb(standby),
    }
