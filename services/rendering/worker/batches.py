# SPDX-License-Identifier: Apache-2.0
"""Which of the frames that wait are rendered together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)


def batches(keys: Sequence[KeyT], limit_of: Callable[[KeyT], int]) -> Iterator[list[int]]:
    """Puts frames of the same avatar together; avatars take turns in the order of their first.

    Args:
        keys: The avatar of each frame, in the order of arrival.
        limit_of: How many frames of an avatar may be rendered at once.

    Yields:
        Positions of the frames of a batch, in order.
    """
    if len(keys) == 1:
        yield [0]
        return
    left = list(range(len(keys)))
    while left:
        key = keys[left[0]]
        batch = [index for index in left if keys[index] == key][: max(1, limit_of(key))]
        left = [index for index in left if index not in batch]
        yield batch
