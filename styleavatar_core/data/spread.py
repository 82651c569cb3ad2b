# SPDX-License-Identifier: Apache-2.0
"""Some of many: frames that stand for a clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

ItemT = TypeVar("ItemT")


def spread_evenly(items: Sequence[ItemT], count: int) -> list[ItemT]:
    """Returns up to ``count`` of the items in their order, evenly spread, both ends among them.

    Args:
        items: At least one.
        count: At least one; of one item only the first is taken.
    """
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]
