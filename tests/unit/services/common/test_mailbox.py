# SPDX-License-Identifier: Apache-2.0
"""Latest wins, or all in order; nothing waits without a bound."""

from __future__ import annotations

import asyncio

import pytest

from services.common.mailbox import FrameMailbox, running
from styleavatar_core.errors import InvalidInputError


def mailbox(*, latest_only: bool) -> FrameMailbox[str]:
    return FrameMailbox(latest_only=latest_only, merge=lambda old, new: old[:1] + new, capacity=2)


def test_latest_only_keeps_the_newest_and_counts() -> None:
    async def scenario() -> None:
        box = mailbox(latest_only=True)
        for item in ("a", "b", "c"):
            await box.put(item)
        await box.close()
        assert await box.get() == "ac"  # what the merges kept of the first, and the newest
        assert box.take_superseded_count() == 2
        assert box.take_superseded_count() == 0
        assert await box.get() is None

    asyncio.run(scenario())


def test_every_frame_waits_when_full_and_keeps_order() -> None:
    async def scenario() -> None:
        box = mailbox(latest_only=False)
        await box.put("a")
        await box.put("b")
        third = asyncio.create_task(box.put("c"))
        await asyncio.sleep(0)
        assert not third.done()
        assert await box.get() == "a"
        await third
        assert [await box.get(), await box.get()] == ["b", "c"]
        assert box.take_superseded_count() == 0

    asyncio.run(scenario())


def test_an_error_comes_after_the_last_frame() -> None:
    async def scenario() -> None:
        box = mailbox(latest_only=False)
        await box.put("a")
        await box.close(ValueError("bad"))
        assert await box.get() == "a"
        with pytest.raises(ValueError, match="bad"):
            await box.get()

    asyncio.run(scenario())


@pytest.mark.parametrize("latest_only", [True, False])
def test_a_frame_that_waits_at_the_closing_is_taken_and_one_after_it_is_not(
    latest_only: bool,
) -> None:
    async def scenario() -> None:
        box = mailbox(latest_only=latest_only)
        await box.put("a")
        await box.put("b")
        waiting = asyncio.create_task(box.put("c"))
        await asyncio.sleep(0)
        await box.close(ValueError("avatar deleted"))
        await waiting
        await box.put("d")
        left = [await box.get() for _ in range(1 if latest_only else 3)]
        assert left == (["ac"] if latest_only else ["a", "b", "c"])
        with pytest.raises(ValueError, match="deleted"):
            await box.get()

    asyncio.run(scenario())


@pytest.mark.parametrize("latest_only", [True, False])
def test_who_is_called_for_each_frame_takes_it_in_the_turn_in_which_it_was_left(
    latest_only: bool,
) -> None:
    async def scenario() -> None:
        box = mailbox(latest_only=latest_only)
        taken: list[tuple[str | None, bool]] = []
        box.on_change = lambda: taken.append((box.take(), box.is_over))
        for item in ("a", "b", "c"):  # more than fit: each was taken before the next came
            await box.put(item)
        await box.close()
        assert taken == [("a", False), ("b", False), ("c", False), (None, True)]
        assert box.take_superseded_count() == 0

    asyncio.run(scenario())


def test_an_end_that_is_read_after_an_error_does_not_hide_it() -> None:
    async def scenario() -> None:
        box = mailbox(latest_only=False)
        await box.put("a")
        await box.close(InvalidInputError("the server stops"))
        await box.close()
        assert await box.get() == "a"
        with pytest.raises(InvalidInputError, match="the server stops"):
            await box.get()

    asyncio.run(scenario())


def test_work_beside_that_fails_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("nobody thought of this")

    async def scenario() -> None:
        async with running(fail(), asyncio.sleep(60)):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert "nobody thought of this" in caplog.text

    asyncio.run(scenario())
    assert len(caplog.records) == 1
