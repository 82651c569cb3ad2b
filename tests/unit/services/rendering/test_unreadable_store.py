# SPDX-License-Identifier: Apache-2.0
"""A store that cannot be read for a while, or in part, ends nothing that goes on without it."""

from __future__ import annotations

import asyncio
import errno
import shutil
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.common.grpc_server import Leaving
from services.common.mailbox import FrameMailbox, running
from services.common.metrics import RenderingMetrics
from services.common.storage import AvatarStore
from services.common.worker.options import WorkerOptions
from services.rendering.catalog import AvatarCatalog
from services.rendering.health import AvatarHealth
from services.rendering.pool.devices import DeviceWorkers
from services.rendering.pool.limits import PoolLimits
from services.rendering.pool.pool import RenderPool
from services.rendering.requests import StreamItem, merge_items
from services.rendering.servicer import RenderingServicer
from styleavatar_core.errors import NotFoundError
from tests.fakes.bundle import write_fake_bundle


class StaleStore(AvatarStore):
    """A folder of another machine, which has gone for a while."""

    is_gone = True

    def path(self, avatar_id: str) -> Path:
        if self.is_gone:
            raise OSError(116, "Stale file handle")
        return super().path(avatar_id)


class RecoveringStore(StaleStore):
    """It is back at the second look."""

    def path(self, avatar_id: str) -> Path:
        try:
            return super().path(avatar_id)
        finally:
            self.is_gone = False


def test_health_is_told_of_later_changes_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = StaleStore(tmp_path)
        write_fake_bundle(tmp_path / "anna", 1)
        told: asyncio.Queue[tuple[str, bool | None]] = asyncio.Queue()
        catalog = AvatarCatalog(store)
        store.is_gone = False
        catalog.get("anna")
        store.is_gone = True
        health = AvatarHealth(catalog, lambda entry: True, lambda *what: told.put_nowait(what))
        async with running(health.keep_telling()), asyncio.timeout(30):
            health.change("anna")
            assert await told.get() == ("avatar/anna", True)
            store.is_gone = False
            health.change("ben")
            assert await told.get() == ("avatar/ben", None)

    asyncio.run(scenario())


def test_a_stream_is_still_watched(tmp_path: Path) -> None:
    async def scenario() -> None:
        metrics = RenderingMetrics(CollectorRegistry())
        pool = RenderPool([DeviceWorkers(WorkerOptions("none"), 1)], PoolLimits(1), metrics)
        store = RecoveringStore(tmp_path)
        servicer = RenderingServicer(AvatarCatalog(store), pool, metrics, Leaving(), stream_limit=1)
        mailbox = FrameMailbox[StreamItem](latest_only=True, merge=merge_items)
        async with asyncio.timeout(30):
            await servicer._watch("anna", mailbox)
        assert not store.is_gone
        with pytest.raises(NotFoundError, match="anna"):  # seen only when it could be looked for
            mailbox.take()

    asyncio.run(scenario())


def test_one_that_cannot_be_read_keeps_no_other_from_being_served_or_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_file = Path.is_file

    def refuse(path: Path) -> bool:
        if path.parent.name == "bob":  # restored as another user
            raise PermissionError(errno.EACCES, "Permission denied")
        return is_file(path)

    for mark, name in enumerate(("anna", "bob", "carla")):
        write_fake_bundle(tmp_path / name, mark)
    catalog = AvatarCatalog(AvatarStore(tmp_path))
    assert len(catalog.list()) == 3
    monkeypatch.setattr(Path, "is_file", refuse)
    assert [entry.avatar_id for entry in catalog.list()] == ["anna", "carla"]
    shutil.rmtree(tmp_path / "carla")
    assert [entry.avatar_id for entry in catalog.vanished()] == ["carla"]
