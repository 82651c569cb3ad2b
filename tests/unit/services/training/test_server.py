# SPDX-License-Identifier: Apache-2.0
"""A trainer without Redis says where it looked for it, and no password."""

from __future__ import annotations

import pytest

from services.common.redis_client import connect_redis
from services.training.server import require_redis
from styleavatar_core.errors import ConflictError


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://trainer:secret@127.0.0.1:1/3", "127.0.0.1:1/3"),
        ("rediss://:secret@127.0.0.1:1", "127.0.0.1:1/0"),
        ("redis://127.0.0.1:1/2?password=secret", "127.0.0.1:1/2"),
        ("unix://trainer:secret@/no/such/redis.sock?db=2", "/no/such/redis.sock"),
    ],
)
def test_where_redis_was_looked_for_is_told_without_its_password(url: str, place: str) -> None:
    with pytest.raises(ConflictError) as caught:
        require_redis(connect_redis(url, retries=0))
    assert f"Redis does not answer at {place}: " in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "trainer" not in str(caught.value)
