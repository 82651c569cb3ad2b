# SPDX-License-Identifier: Apache-2.0
"""One stream beside the bare engine: latency by stage, throughput, time to the first frame."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np

from benchmarks.streaming_parts.callers import Stream, moving_face

WARM_UP_COUNT = 20
IN_FLIGHT = 3


def durations_ms(work: Callable[[int], object], count: int) -> list[float]:
    """Times ``work(index)``, after a warm-up."""
    for index in range(WARM_UP_COUNT):
        work(index)
    times = []
    for index in range(count):
        started = time.perf_counter()
        work(index)
        times.append(1e3 * (time.perf_counter() - started))
    return times


def measure_bare(bundle: Path, backend: str, count: int) -> dict[str, float]:
    """The engine and its conditioning alone, in this process."""
    from styleavatar_core.engine.avatar_renderer import AvatarRenderer

    renderer = AvatarRenderer(bundle, backend=backend)
    times = durations_ms(lambda index: renderer.render(moving_face(index)), count)
    renderer.close()
    return {
        "bare_frames_per_second": 1e3 * count / sum(times),
        "bare_frame_ms_p50": float(np.percentile(times, 50)),
    }


def measure_stream(channel: grpc.Channel, avatar_id: str, count: int) -> dict[str, float]:
    """Latency of a lone frame beside its engine time, and throughput with frames in flight."""
    stream = Stream(channel, avatar_id)
    rows: list[dict[str, float]] = []

    def one(index: int) -> None:
        sent_s = stream.send(index)
        stages = stream.receive().stage_durations
        latency_s = time.perf_counter() - sent_s
        row = {field.name: value.ToNanoseconds() / 1e6 for field, value in stages.ListFields()}
        row["latency"] = 1e3 * latency_s
        row["transport"] = row["latency"] - row["total"]
        row["overhead"] = row["latency"] - row["conditioning"] - row["network"]
        rows.append(row)

    durations_ms(one, count)
    columns = {name: [row[name] for row in rows[WARM_UP_COUNT:]] for name in rows[-1]}
    figures = {
        f"stage.{name}_ms_p50": float(np.percentile(values, 50))
        for name, values in columns.items()
        if name != "overhead"
    }
    for percent in (50, 99):
        figures[f"overhead_ms_p{percent}"] = float(np.percentile(columns["overhead"], percent))
    for index in range(IN_FLIGHT):
        stream.send(index)
    begun = time.perf_counter()
    for index in range(count):
        stream.send(index)
        stream.receive()
    figures["frames_per_second"] = count / (time.perf_counter() - begun)
    for _ in range(IN_FLIGHT):
        stream.receive()
    stream.close()
    return figures


def measure_first_frames(channel: grpc.Channel, avatar_id: str, count: int) -> float:
    """Milliseconds from opening a stream to its first frame, the avatar being loaded; median."""

    def one(index: int) -> None:
        stream = Stream(channel, avatar_id)
        stream.send(index)
        stream.receive()
        stream.close()

    return float(np.percentile(durations_ms(one, count), 50))
