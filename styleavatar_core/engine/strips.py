# SPDX-License-Identifier: Apache-2.0
"""Strips of an image that threads compute side by side."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

Strip = tuple[int, int]  # first row (or tile) and how many


@functools.cache
def _pool(count: int) -> ThreadPoolExecutor:
    """Returns threads, in each of which torch computes alone."""
    return ThreadPoolExecutor(count, "strips", initializer=torch.set_num_threads, initargs=(1,))


os.register_at_fork(after_in_child=_pool.cache_clear)


def plan_strips(rows: int, bytes_per_row: int, most_bytes: int, block: int = 1) -> list[Strip]:
    """Cuts rows into strips of about one size, as many for each of torch's threads.

    Args:
        rows: Rows (or tiles), at least one.
        bytes_per_row: Memory that a row takes.
        most_bytes: Memory that a strip may take, if it has more blocks than one.
        block: Rows that are computed together; only the last strip may end within a block.
    """
    threads = torch.get_num_threads()
    blocks = -(-rows // block)
    wanted = -(-rows * bytes_per_row // most_bytes)
    count = min(blocks, -(-wanted // threads) * threads)
    places = [min(rows, index * blocks // count * block) for index in range(count + 1)]
    return [(first, last - first) for first, last in itertools.pairwise(places)]


def share_strips(strips: list[Strip], compute: Callable[[int, int, int], None]) -> None:
    """Calls ``compute(thread, first row, rows)`` for each strip, on as many threads as torch's.

    Args:
        strips: What :func:`plan_strips` gave.
        compute: Computes one strip; ``thread`` counts from 0 and names what it alone uses.
    """
    threads = torch.get_num_threads()
    waiting = iter(strips)

    def take(thread: int) -> None:
        with torch.inference_mode():
            for strip in waiting:
                compute(thread, *strip)

    others = [
        _pool(threads - 1).submit(take, thread) for thread in range(1, min(threads, len(strips)))
    ]
    torch.set_num_threads(1)
    try:
        take(0)
        for other in others:
            other.result()
    finally:
        torch.set_num_threads(threads)
