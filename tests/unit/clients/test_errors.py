# SPDX-License-Identifier: Apache-2.0
"""Which ends of a stream mean that its node is gone, and when the next one is tried."""

from __future__ import annotations

import grpc
import pytest
from styleavatar_client.errors import is_lost
from styleavatar_client.streaming import RECONNECT_PAUSE_S, Patience

CODES = grpc.StatusCode


class Ended(grpc.RpcError):
    """A status as gRPC raises it."""

    def __init__(self, code: grpc.StatusCode, reason: str, delay: str = "") -> None:
        super().__init__()
        self._code = code
        told = (("styleavatar-reason", reason), ("styleavatar-retry-delay-s", delay))
        self._metadata = tuple(pair for pair in told if pair[1]) or None

    def code(self) -> grpc.StatusCode:
        return self._code

    def trailing_metadata(self) -> tuple[tuple[str, str], ...] | None:
        return self._metadata


@pytest.mark.parametrize(
    ("code", "reason", "lost"),
    [
        (CODES.UNAVAILABLE, "", True),
        (CODES.UNAVAILABLE, "GOING_AWAY", True),
        (CODES.INTERNAL, "", True),  # a balancer reset the stream
        (CODES.UNKNOWN, "", True),
        (CODES.INTERNAL, "RENDER_FAILED", False),  # the service says so itself
        (CODES.NOT_FOUND, "AVATAR_NOT_FOUND", False),
        (CODES.CANCELLED, "", False),
    ],
)
def test_a_node_is_lost(code: grpc.StatusCode, reason: str, lost: bool) -> None:
    assert is_lost(Ended(code, reason)) is lost


def test_the_next_node_is_tried_soon_and_all_of_them_again_when_they_say() -> None:
    full = Ended(CODES.RESOURCE_EXHAUSTED, "NO_CAPACITY", "2.5")
    patience = Patience(address_count=2, timeout_s=20)
    patience.renew()
    assert patience.allows(full)
    pauses_s = [patience.pause_s(full) for _ in range(4)]
    assert pauses_s == [RECONNECT_PAUSE_S, 2.5, RECONNECT_PAUSE_S, 2.5]
    assert patience.pause_s(Ended(CODES.UNAVAILABLE, "")) == RECONNECT_PAUSE_S
    assert Patience(address_count=1, timeout_s=20).pause_s(full) == 2.5
