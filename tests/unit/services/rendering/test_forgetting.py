# SPDX-License-Identifier: Apache-2.0
"""The front keeps nothing of an avatar that workers have let go, for the stand-by neither."""

from __future__ import annotations

import asyncio
import gc
import shutil
import weakref
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.common.metrics import RenderingMetrics
from services.common.storage import AvatarStore
from services.common.worker.options import WorkerOptions
from services.rendering.catalog import AvatarCatalog
from services.rendering.deletion import forget_deleted
from services.rendering.pool.devices import DeviceWorkers
from services.rendering.pool.limits import PoolLimits
from services.rendering.pool.pool import RenderPool
from styleavatar_core.avatar.manifest import AvatarManifest
from styleavatar_core.engine.cache import EngineCache
from tests.fakes.bundle import write_fake_bundle
from tests.fakes.renderer import MEMORY_BYTES

OPTIONS = WorkerOptions(
    "services.rendering.worker",
    options={
        "renderer": "tests.fakes.renderer:FakeRenderer",
        "backend": "auto",
        "precision": None,
        "thread_count": 1,
        "log_level": "INFO",
        "log_format": "console",
    },
)


@pytest.mark.parametrize("is_replaced", [False, True])
def test_the_consent_of_a_bundle_that_is_gone_is_gone_with_it(
    tmp_path: Path, is_replaced: bool
) -> None:
    folder = tmp_path / "avatars" / "anna"
    catalog = AvatarCatalog(AvatarStore(folder.parent))
    metrics = RenderingMetrics(CollectorRegistry())

    async def load(pool: RenderPool) -> weakref.ref[AvatarManifest]:
        entry = catalog.get("anna")
        await pool.load(entry)
        return weakref.ref(entry.manifest)

    async def scenario() -> None:
        write_fake_bundle(folder, 1)
        pool = RenderPool([DeviceWorkers(OPTIONS, 1)], PoolLimits(MEMORY_BYTES), metrics)
        await pool.start()
        try:
            manifest = await load(pool)
            shutil.rmtree(folder)
            if is_replaced:
                write_fake_bundle(folder, 2)
            await forget_deleted(catalog, pool, EngineCache(tmp_path / "engines"))
            gc.collect()
            assert manifest() is None
        finally:
            await pool.stop()

    asyncio.run(scenario())
