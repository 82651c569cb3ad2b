# SPDX-License-Identifier: Apache-2.0
"""What leaves a worker for others."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from services.common.metrics import RenderingMetrics
from services.common.worker.options import WorkerOptions
from services.common.worker.standby import StandBy
from services.rendering.pool.capacity import FrameCosts
from services.rendering.pool.limits import PoolLimits
from services.rendering.pool.worker import PoolWorker

ANNA, BEN = ("anna", "1"), ("ben", "1")


def test_an_avatar_that_a_stream_comes_for_meanwhile_does_not_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = WorkerOptions("tests.fakes.echo_worker")
    metrics = RenderingMetrics(CollectorRegistry())
    worker = PoolWorker(
        options, StandBy(options), PoolLimits(2), metrics, FrameCosts(), lambda avatar_id: None
    )
    for key in (ANNA, BEN):
        worker.shelf.put(key, 1)
    unload = worker.unload

    async def unload_slowly(*keys: tuple[str, str]) -> None:
        worker.pinned[BEN] += 1  # behind frames of others, this takes its time
        await unload(*keys)

    monkeypatch.setattr(worker, "unload", unload_slowly)
    asyncio.run(worker._evict([ANNA, BEN]))
    assert list(worker.shelf) == [BEN]
