# SPDX-License-Identifier: Apache-2.0
"""Streams beside the bare engine: latency by stage, throughput, time to the first frame."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
import psutil
from styleavatar.v1 import rendering_service_pb2, rendering_service_pb2_grpc

from benchmarks.streaming_parts.callers import (
    Stream,
    config_request,
    face_request,
    moving_face,
    own_connection,
)
from benchmarks.streaming_parts.service import RunningService
from styleavatar_core.cores import usable_core_count
from styleavatar_core.types import FaceParameters

if TYPE_CHECKING:
    from styleavatar_core.engine.avatar_renderer import AvatarRenderer

WARM_UP_COUNT = 10
IN_FLIGHT = 3
# The bare engine and the service are timed alternately, so many times each.
TURNS = 10


def measure_throughput(
    service: RunningService, avatar_ids: Sequence[str], bundle: Path, backend: str, count: int
) -> dict[str, float]:
    """Frames per second of the service and of the engine alone, in this process, on all cores.

    The service has a stream for each of its workers, of another avatar as long as there are such.
    Alone, the engine is measured in two ways: one that shares all cores, which renders a frame
    soonest, and one of one thread for each worker, which together render the most. Service and
    engines take turns, so that a slow moment of the machine befalls all. Faces and requests are
    made before: who asks shares the cores of who renders here, as he would not elsewhere. Beside
    them, the processor time that a frame takes in each process, which the figures follow.
    """
    worker_count = service.worker_count
    streams = [Stream(service.channel, name) for name in islice(cycle(avatar_ids), worker_count)]
    each = max(1, count // TURNS)
    asked = max(1, each // worker_count)
    faces = [moving_face(index) for index in range(max(each, WARM_UP_COUNT))]
    seconds = {"bare": 0.0, "bare_apart": 0.0, "service": 0.0}
    spent_s: dict[str, float] = {}
    with bare_engines(bundle, backend, worker_count) as (bare, apart):
        for _ in range(TURNS):
            seconds["bare"] += seconds_of_engines([bare], faces, each)
            seconds["bare_apart"] += seconds_of_engines(apart, faces, asked)
            before_s = processor_s(service)
            seconds["service"] += seconds_with_frames_in_flight(streams, asked)
            for name, after_s in processor_s(service).items():
                spent_s[name] = spent_s.get(name, 0.0) + after_s - before_s[name]
    for stream in streams:
        stream.close()
    frame_count = TURNS * worker_count * (asked + IN_FLIGHT + WARM_UP_COUNT)
    bare_per_s = TURNS * each / seconds["bare"]
    apart_per_s = TURNS * worker_count * asked / seconds["bare_apart"]
    frames_per_s = TURNS * worker_count * asked / seconds["service"]
    return {
        **{f"processor.{name}_ms": 1e3 * spent / frame_count for name, spent in spent_s.items()},
        "bare_frames_per_second": bare_per_s,
        "bare_apart_frames_per_second": apart_per_s,
        "frames_per_second": frames_per_s,
        "throughput_ratio": frames_per_s / bare_per_s,
        "throughput_apart_ratio": frames_per_s / apart_per_s,
    }


@contextmanager
def bare_engines(
    bundle: Path, backend: str, worker_count: int
) -> Iterator[tuple[AvatarRenderer, list[AvatarRenderer]]]:
    """Opens an engine of all cores, and so many that have one thread each."""
    from styleavatar_core.engine.avatar_renderer import AvatarRenderer

    with ExitStack() as stack:

        def opened(thread_count: int) -> AvatarRenderer:
            renderer = AvatarRenderer(bundle, backend=backend, thread_count=thread_count)
            return stack.enter_context(closing(renderer))

        yield opened(usable_core_count()), [opened(1) for _ in range(worker_count)]


def seconds_of_engines(
    engines: Sequence[AvatarRenderer], faces: Sequence[FaceParameters], count: int
) -> float:
    """Times so many frames of each engine, all at once, after a warm-up."""

    def render(engine: AvatarRenderer, frame_count: int) -> None:
        for face in faces[:frame_count]:
            engine.render(face)

    with ThreadPoolExecutor(len(engines)) as threads:
        list(threads.map(partial(render, frame_count=WARM_UP_COUNT), engines))
        begun = time.perf_counter()
        list(threads.map(partial(render, frame_count=count), engines))
        return time.perf_counter() - begun


def processor_s(service: RunningService) -> dict[str, float]:
    """Returns the processor time that each part has taken so far; the caller is this process."""
    times = {"front": [service.process.cpu_times()], "caller": [psutil.Process().cpu_times()]}
    times["workers"] = [worker.cpu_times() for worker in service.workers()]
    return {name: sum(one.user + one.system for one in each) for name, each in times.items()}


def seconds_with_frames_in_flight(streams: Sequence[Stream], count: int) -> float:
    """Times so many frames of each stream; their workers are never without one."""
    for stream in streams:
        for index in range(IN_FLIGHT + WARM_UP_COUNT):
            stream.send(index)
            if index >= IN_FLIGHT:
                stream.receive()
    requests = [face_request(index) for index in range(count)]
    begun = time.perf_counter()
    for request in requests:
        for stream in streams:
            stream.ask(request)
            stream.receive()
    seconds = time.perf_counter() - begun
    for stream in streams:
        for _ in range(IN_FLIGHT):
            stream.receive()
    return seconds


def measure_latency(channel: grpc.Channel, avatar_id: str, count: int) -> dict[str, float]:
    """Latency of a lone frame beside its engine time, as a caller that blocks sees it."""
    stream = Stream(channel, avatar_id)
    rows: list[dict[str, float]] = []
    for index in range(WARM_UP_COUNT + count):
        sent_s = stream.send(index)
        frame = stream.receive()
        rows.append(stages_ms(frame, time.perf_counter() - sent_s))
    stream.close()
    columns = {name: [row[name] for row in rows[WARM_UP_COUNT:]] for name in rows[-1]}
    overhead = columns.pop("overhead")
    stages = {
        f"stage.{name}_ms_p50": float(np.percentile(values, 50)) for name, values in columns.items()
    }
    return stages | percentiles("overhead", overhead)


async def measure_asyncio_latency(address: str, avatar_id: str, count: int) -> dict[str, float]:
    """The same as a caller through asyncio sees it, who has no threads to wake."""
    overhead: list[float] = []
    async with own_connection(address) as channel:
        call = rendering_service_pb2_grpc.RenderingServiceStub(channel).StreamFrames()
        await call.write(config_request(avatar_id))
        await call.read()
        for index in range(WARM_UP_COUNT + count):
            request = face_request(index)
            sent_s = time.perf_counter()
            await call.write(request)
            frame = (await call.read()).frame
            overhead.append(stages_ms(frame, time.perf_counter() - sent_s)["overhead"])
        await call.done_writing()
    return percentiles("asyncio.overhead", overhead[WARM_UP_COUNT:])


def stages_ms(frame: rendering_service_pb2.RenderedFrame, latency_s: float) -> dict[str, float]:
    """Returns the stages of a frame, what the caller waited beside them, and the overhead."""
    fields = frame.stage_durations.ListFields()
    row = {field.name: value.ToNanoseconds() / 1e6 for field, value in fields}
    latency_ms = 1e3 * latency_s
    row["latency"] = latency_ms
    row["transport"] = latency_ms - row["total"]
    row["overhead"] = latency_ms - row["conditioning"] - row["network"]
    return row


def percentiles(name: str, values_ms: list[float]) -> dict[str, float]:
    """Returns median and 99th percentile under a figure's name."""
    return {
        f"{name}_ms_p{percent}": float(np.percentile(values_ms, percent)) for percent in (50, 99)
    }


def measure_first_frames(channel: grpc.Channel, avatar_id: str, count: int) -> float:
    """Milliseconds from opening a stream to its first frame, the avatar being loaded; median."""
    waits_ms: list[float] = []
    for index in range(WARM_UP_COUNT + count):
        begun = time.perf_counter()
        stream = Stream(channel, avatar_id)
        stream.send(index)
        stream.receive()
        waits_ms.append(1e3 * (time.perf_counter() - begun))
        stream.close()
    return float(np.percentile(waits_ms[WARM_UP_COUNT:], 50))
