# SPDX-License-Identifier: Apache-2.0
"""Strips of an image that threads compute side by side."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

Strip = tuple[int, int]  # first row (or tile) and how many

_sharing = threading.local()


@functools.cache
def _pool(count: int) -> ThreadPoolExecutor:
    """Returns threads, in each of which torch computes alone."""
    return ThreadPoolExecutor(count, "strips", initializer=torch.set_num_threads, initargs=(1,))


os.register_at_fork(after_in_child=_pool.cache_clear)


def strip_threads() -> int:
    """Returns how many threads compute strips: what the caller shares among, else torch's."""
    return getattr(_sharing, "count", None) or torch.get_num_threads()


@contextlib.contextmanager
def torch_alone(count: int | None) -> Iterator[None]:
    """Lets this thread's strips be shared among ``count`` threads, and torch compute on one.

    Torch's own threads stay awake for milliseconds after each operator, waiting for the next, and
    take the cores from those that compute strips.

    Args:
        count: Threads; as many as torch's if None.
    """
    before, outer = torch.get_num_threads(), getattr(_sharing, "count", None)
    _sharing.count = count or strip_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _sharing.count = outer
        torch.set_num_threads(before)


def plan_strips(rows: int, bytes_per_row: int, most_bytes: int, block: int = 1) -> list[Strip]:
    """Cuts rows into strips of about one size, as many for each thread.

    Args:
        rows: Rows (or tiles), at least one.
        bytes_per_row: Memory that a row takes.
        most_bytes: Memory that a strip may take, if it has more blocks than one.
        block: Rows that are computed together; only the last strip may end within a block.
    """
    threads = strip_threads()
    blocks = -(-rows // block)
    wanted = -(-rows * bytes_per_row // most_bytes)
    count = min(blocks, -(-wanted // threads) * threads)
    places = [min(rows, index * blocks // count * block) for index in range(count + 1)]
    return [(first, last - first) for first, last in itertools.pairwise(places)]


def share_strips(strips: list[Strip], compute: Callable[[int, int, int], None]) -> None:
    """Calls ``compute(thread, first row, rows)`` for each strip, on all threads.

    Args:
        strips: What :func:`plan_strips` gave.
        compute: Computes one strip; ``thread`` counts from 0 and names what it alone uses.
    """
    threads = strip_threads()
    waiting = iter(strips)

    def take(thread: int) -> None:
        with torch.inference_mode():
            for strip in waiting:
                compute(thread, *strip)

    others = [
        _pool(threads - 1).submit(take, thread) for thread in range(1, min(threads, len(strips)))
    ]
    with torch_alone(threads):
        take(0)
        for other in others:
            other.result()
