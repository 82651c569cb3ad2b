# SPDX-License-Identifier: Apache-2.0
"""Who leaves a full worker, and who never does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rendering.pool.shelf import EngineKey, EngineShelf
from styleavatar_core.errors import OverloadedError

ANNA, BEN, CARLA, DORA = ((name, "1") for name in ("anna", "ben", "carla", "dora"))


def filled(limit_bytes: int, *keys: EngineKey, size_bytes: int = 10) -> EngineShelf:
    shelf = EngineShelf(limit_bytes)
    for key in keys:
        shelf.put(key, size_bytes)
    return shelf


def test_the_longest_unused_leave_as_few_as_will_do() -> None:
    shelf = filled(30, ANNA, BEN, CARLA, DORA)
    shelf.touch(ANNA)
    assert shelf.total_bytes == 40
    assert shelf.leaving(DORA, pinned=()) == [BEN]
    shelf.put(DORA, 25)
    assert shelf.leaving(DORA, pinned=()) == [BEN, CARLA, ANNA]


def test_what_streams_use_stays() -> None:
    shelf = filled(20, ANNA, BEN, CARLA)
    assert shelf.leaving(CARLA, pinned={ANNA}) == [BEN]
    with pytest.raises(OverloadedError, match="take more than"):
        shelf.leaving(CARLA, pinned={ANNA, BEN})


def test_one_alone_may_be_larger_than_the_limit() -> None:
    assert filled(5, ANNA).leaving(ANNA, pinned={ANNA}) == []
    assert filled(5, BEN, ANNA).leaving(ANNA, pinned=()) == [BEN]


def test_what_is_gone_takes_nothing() -> None:
    shelf = filled(30, ANNA, BEN)
    shelf.discard(ANNA)
    shelf.discard(CARLA)
    assert (list(shelf), len(shelf), shelf.total_bytes) == ([BEN], 1, 10)
    shelf.touch(ANNA)
    assert ANNA not in shelf


KEYS = st.sampled_from([ANNA, BEN, CARLA, DORA])


@given(st.dictionaries(KEYS, st.integers(1, 50)), KEYS, st.sets(KEYS), st.integers(1, 100))
def test_nobody_in_use_leaves_and_the_rest_fits(
    sizes: dict[EngineKey, int], newcomer: EngineKey, pinned: set[EngineKey], limit: int
) -> None:
    shelf = EngineShelf(limit)
    for key, size_bytes in {**sizes, newcomer: 10}.items():
        shelf.put(key, size_bytes)
    staying = pinned | {newcomer}
    try:
        leaving = shelf.leaving(newcomer, pinned)
    except OverloadedError:
        assert sum(size for key, size in {**sizes, newcomer: 10}.items() if key in staying) > limit
        return
    assert not staying & set(leaving)
    for key in leaving:
        shelf.discard(key)
    assert shelf.total_bytes <= limit or list(shelf) == [newcomer]
