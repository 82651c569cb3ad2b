# SPDX-License-Identifier: Apache-2.0
"""How the gateway is put together."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry

from services.common.metrics import GatewayMetrics
from services.common.redis_client import ANSWER_LIMIT_S
from services.gateway.app import make_app
from services.gateway.settings import GatewaySettings


def test_who_follows_a_job_waits_for_redis_as_long_as_others(tmp_path: Path) -> None:
    """Versions of the redis package differ in how long they wait by themselves: 6 and 7 forever."""
    settings = GatewaySettings(redis_url="redis://127.0.0.1:1", data_folder=tmp_path)
    parts = make_app(settings, GatewayMetrics(CollectorRegistry())).state.parts
    waits = [redis.connection_pool.connection_kwargs for redis in (parts.redis, parts.async_redis)]
    for name in ("socket_timeout", "socket_connect_timeout"):
        assert {wait.get(name) for wait in waits} == {ANSWER_LIMIT_S}
