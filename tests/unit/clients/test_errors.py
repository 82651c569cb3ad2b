# SPDX-License-Identifier: Apache-2.0
"""Which ends of a stream mean that its node is gone."""

from __future__ import annotations

import grpc
import pytest
from styleavatar_client.errors import is_lost

CODES = grpc.StatusCode


class Ended(grpc.RpcError):
    """A status as gRPC raises it."""

    def __init__(self, code: grpc.StatusCode, reason: str) -> None:
        super().__init__()
        self._code = code
        self._metadata = (("styleavatar-reason", reason),) if reason else None

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
