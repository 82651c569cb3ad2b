# SPDX-License-Identifier: Apache-2.0
"""Strips of an image that threads compute side by side."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import torch

Strip = tuple[int, int]  # first row (or tile) and how many

_sharing = threading.local()


class _Crew:
    """Threads that wait for strips, in each of which torch computes alone.

    An executor of the standard library takes 1 to 2 % of a large frame longer: it makes a future,
    and locks it, for each of a hundred layers.
    """

    def __init__(self, count: int) -> None:
        self._tasks: SimpleQueue[tuple[Callable[[int], None], int, SimpleQueue]] = SimpleQueue()
        for _ in range(count):
            threading.Thread(target=self._work, name="strips", daemon=True).start()

    def start(self, take: Callable[[int], None], thread: int, ended: SimpleQueue) -> None:
        """Lets one of the threads call ``take(thread)``, and put what failed, or None, last."""
        self._tasks.put((take, thread, ended))

    def _work(self) -> None:
        torch.set_num_threads(1)
        with torch.inference_mode():
            while True:
                _try(*self._tasks.get())


def _try(take: Callable[[int], None], thread: int, ended: SimpleQueue) -> None:
    """Calls ``take``; in a function, so that nothing of an avatar is held until the next one."""
    try:
        take(thread)
    except BaseException as error:
        ended.put(error)
    else:
        ended.put(None)


@functools.cache
def _crew(count: int) -> _Crew:
    return _Crew(count)


os.register_at_fork(after_in_child=_crew.cache_clear)


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
        strips: What :func:`plan_strips` gave; the longest are computed first, so that threads end
            together.
        compute: Computes one strip; ``thread`` counts from 0 and names what it alone uses.
    """
    threads = strip_threads()
    waiting = iter(sorted(strips, key=lambda strip: -strip[1]))

    def take(thread: int) -> None:
        for strip in waiting:
            compute(thread, *strip)

    others = range(1, min(threads, len(strips)))
    ended: SimpleQueue[BaseException | None] = SimpleQueue()
    for thread in others:
        _crew(threads - 1).start(take, thread, ended)
    try:
        take(0)
    finally:
        failures = [ended.get() for _ in others]
    for failure in failures:
        if failure is not None:
            raise failure
