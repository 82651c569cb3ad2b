# SPDX-License-Identifier: Apache-2.0
"""Who falls silent is let go; who has said all that he wanted is answered to the end."""

from __future__ import annotations

import asyncio

import pytest

from services.common.mailbox import FrameMailbox
from services.common.silence import config_in_time, end_when_silent
from styleavatar_core.errors import ConflictError


def mailbox() -> FrameMailbox[str]:
    return FrameMailbox(latest_only=False, merge=lambda old, new: new)


def test_silence_ends_a_stream_after_what_waits() -> None:
    async def scenario() -> None:
        box = mailbox()
        await box.put("a")
        await end_when_silent(box, 0.01)
        assert await box.get() == "a"
        with pytest.raises(ConflictError, match=r"no frame came for 0\.01 s") as caught:
            await box.get()
        assert caught.value.reason == "IDLE_TIMEOUT"

    asyncio.run(scenario())


def test_one_who_has_ended_his_half_is_not_silent() -> None:
    async def scenario() -> None:
        box = mailbox()
        await box.close()
        await end_when_silent(box, 0.01)
        assert await box.get() is None

    asyncio.run(scenario())


def test_a_config_is_waited_for_but_not_for_ever() -> None:
    async def scenario() -> None:
        assert await config_in_time(asyncio.sleep(0, "config"), 10) == "config"
        with pytest.raises(ConflictError, match="no config came"):
            await config_in_time(asyncio.Event().wait(), 0.01)

    asyncio.run(scenario())
