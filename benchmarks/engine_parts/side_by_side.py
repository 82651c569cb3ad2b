# SPDX-License-Identifier: Apache-2.0
"""Several avatars on one device: what each takes besides the first, and how fast they are at once.

Each has its own thread and, on a GPU, its own stream.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from benchmarks.engine_parts.case import DEVICE, Case, Figures, Held
from benchmarks.engine_parts.opening import Opening
from styleavatar_core.engine.base import RenderEngine, RenderInput

_LEAST_ROUNDS = 3


def more_avatars(case: Case, opening: Opening, first: RenderEngine, batch: RenderInput) -> Figures:
    """Loads further avatars beside a first one and renders with all of them.

    Args:
        case: What is measured.
        opening: Loads them.
        first: The one that is there.
        batch: What each renders.

    Returns:
        Memory of each further avatar; frames per second of all, if more than one is asked for.
    """
    before = Held.now()
    others = [opening.load() for _ in range(max(1, case.stream_count - 1))]
    for engine in others:
        engine.warm_up()
        engine.render(batch)
    figures = Held.now().growth_since(before, "next_avatar_memory", len(others))
    if case.stream_count > 1:
        name = f"streams{case.stream_count}.frames_per_s"
        figures[name] = _frames_per_s([first, *others], batch, case.seconds)
    for engine in others:
        engine.close()
    return figures


def _frames_per_s(engines: Sequence[RenderEngine], batch: RenderInput, seconds: float) -> float:
    """Returns the frames per second of engines that all render at once."""
    begin = threading.Barrier(len(engines) + 1)
    with ThreadPoolExecutor(len(engines)) as pool:
        running = [pool.submit(_render, engine, batch, seconds, begin) for engine in engines]
        begin.wait()
        start = time.perf_counter()
        rounds = sum(one.result() for one in running)
        elapsed_s = time.perf_counter() - start
    return rounds * len(batch.face_mask) / elapsed_s


def _render(
    engine: RenderEngine, batch: RenderInput, seconds: float, begin: threading.Barrier
) -> int:
    """Renders for some time; returns how often."""
    stream = (
        torch.cuda.stream(torch.cuda.Stream()) if DEVICE == "cuda" else contextlib.nullcontext()
    )
    with stream:
        begin.wait()
        end = time.perf_counter() + seconds
        rounds = 0
        while rounds < _LEAST_ROUNDS or time.perf_counter() < end:
            engine.render(batch)
            rounds += 1
    return rounds
