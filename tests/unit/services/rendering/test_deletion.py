# SPDX-License-Identifier: Apache-2.0
"""What was made of a deleted avatar goes with it."""

from __future__ import annotations

import asyncio
import errno
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from services.common.storage import AvatarStore
from services.rendering import deletion
from services.rendering.catalog import AvatarCatalog, AvatarEntry
from services.rendering.deletion import forget_deleted, forget_deleted_before, keep_forgetting
from styleavatar_core.engine.cache import EngineCache
from styleavatar_core.engine.cache_key import CacheKey
from styleavatar_core.errors import WorkerLostError
from tests.fakes.bundle import write_fake_bundle


class Workers:
    """Notes what they are to let go of; streams or loads hold some of it."""

    def __init__(self) -> None:
        self.forgotten: list[str] = []
        self.released: list[str] = []
        self.held: set[str] = set()
        self.errors: list[Exception] = []

    async def forget(self, avatar_id: str) -> None:
        self.forgotten.append(avatar_id)
        if self.errors:
            raise self.errors.pop()

    async def release(self, entry: AvatarEntry) -> bool:
        self.released.append(entry.avatar_id)
        return entry.avatar_id not in self.held


def test_deleted_and_replaced_bundles_leave_memory_and_cache(tmp_path: Path) -> None:
    catalog = AvatarCatalog(AvatarStore(tmp_path / "avatars"))
    cache = EngineCache(tmp_path / "engines")
    workers = Workers()

    def kept() -> set[str]:
        """Names of the avatars whose engines are in the cache."""
        files = [path.name for path in (tmp_path / "engines").glob("*.engine")]
        return {name for name, key in keys.items() if key.file_name in files}

    keys = {}
    for mark, name in enumerate(("anna", "bob", "carla")):
        write_fake_bundle(tmp_path / "avatars" / name, mark)
        keys[name] = CacheKey(catalog.get(name).digest, "onnxruntime", "1.0")
        cache.replace(keys[name], b"weights of " + name.encode())
    asyncio.run(forget_deleted(catalog, workers, cache))
    assert kept() == {"anna", "bob", "carla"}
    assert (workers.forgotten, workers.released) == ([], [])

    shutil.rmtree(tmp_path / "avatars" / "anna")  # and nobody asks for it
    write_fake_bundle(tmp_path / "avatars" / "bob", 9)
    workers.held = {"bob"}  # what it was made of goes, the engine at work stays for now
    for released in (["bob"], ["bob", "bob"], ["bob", "bob"]):
        asyncio.run(forget_deleted(catalog, workers, cache))
        assert kept() == {"carla"}
        assert (workers.forgotten, workers.released) == (["anna"], ["anna", *released])
        workers.held = set()


def test_what_cannot_be_let_go_now_is_let_go_later(tmp_path: Path) -> None:
    catalog = AvatarCatalog(AvatarStore(tmp_path / "avatars"))
    for mark, name in enumerate(("anna", "bob")):
        write_fake_bundle(tmp_path / "avatars" / name, mark)
        catalog.get(name)
    shutil.rmtree(tmp_path / "avatars")
    workers = Workers()
    workers.errors = [WorkerLostError("the worker is being replaced")]
    for expected in (["anna", "bob"], ["anna", "bob", "anna"], ["anna", "bob", "anna"]):
        asyncio.run(forget_deleted(catalog, workers, EngineCache(tmp_path / "engines")))
        assert workers.forgotten == expected


def test_what_a_worker_keeps_of_an_avatar_that_was_deleted_while_it_loaded_goes_later(
    tmp_path: Path,
) -> None:
    catalog = AvatarCatalog(AvatarStore(tmp_path / "avatars"))
    cache, workers = EngineCache(tmp_path / "engines"), Workers()
    write_fake_bundle(tmp_path / "avatars" / "anna", 1)
    key = CacheKey(catalog.get("anna").digest, "tensorrt", "1.0")
    shutil.rmtree(tmp_path / "avatars" / "anna")
    workers.held = {"anna"}
    asyncio.run(forget_deleted(catalog, workers, cache))
    cache.replace(key, b"weights of anna")  # the worker is killed before it looks for her
    assert cache.served() == {key.digest}  # should this service be killed, too
    workers.held = set()
    asyncio.run(forget_deleted(catalog, workers, cache))
    assert not list((tmp_path / "engines").iterdir())
    assert catalog.vanished() == []


def test_what_is_deleted_while_no_service_runs_is_forgotten_at_the_next_start(
    tmp_path: Path,
) -> None:
    store, cache = AvatarStore(tmp_path / "avatars"), EngineCache(tmp_path / "engines")
    keys = {}
    catalog = AvatarCatalog(store)
    for mark, name in enumerate(("anna", "bob", "carla")):
        write_fake_bundle(tmp_path / "avatars" / name, mark)
        keys[name] = CacheKey(catalog.get(name).digest, "onnxruntime", "1.0")
        cache.replace(keys[name], b"weights of " + name.encode())

    workers = Workers()
    asyncio.run(forget_deleted(catalog, workers, cache))
    assert (workers.forgotten, workers.released) == ([], [])
    another = CacheKey("f" * 64, "onnxruntime", "1.0")  # of a bundle that is in no store
    cache.replace(another, b"weights of somebody who runs an avatar without services")
    shutil.rmtree(tmp_path / "avatars" / "anna")
    write_fake_bundle(tmp_path / "avatars" / "bob", 9)

    forget_deleted_before(AvatarCatalog(store), cache)
    left = {path.name for path in (tmp_path / "engines").glob("*.engine")}
    assert left == {keys["carla"].file_name, another.file_name}
    assert cache.served() == {keys["carla"].digest}


def test_engines_that_cannot_be_seen_now_are_looked_for_later_and_keep_nobody_in_memory(
    tmp_path: Path,
) -> None:
    cache, real = EngineCache(tmp_path / "engines"), tmp_path / "real"
    key = CacheKey("f" * 64, "onnxruntime", "1.0")  # of an avatar that was deleted before
    EngineCache(real).replace(key, b"weights")
    EngineCache(real).mark_served(key.digest)
    cache.folder.symlink_to(cache.folder)  # leads nowhere, for root neither
    write_fake_bundle(tmp_path / "avatars" / "anna", 1)
    catalog, workers = AvatarCatalog(AvatarStore(tmp_path / "avatars")), Workers()
    assert not forget_deleted_before(catalog, cache)
    shutil.rmtree(tmp_path / "avatars" / "anna")
    asyncio.run(forget_deleted(catalog, workers, cache))
    assert workers.forgotten == ["anna"]
    cache.folder.unlink()
    real.rename(cache.folder)
    assert forget_deleted_before(catalog, cache)
    assert not list(cache.folder.glob("*.engine"))


def test_engines_that_cannot_be_removed_keep_nobody_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(cache: EngineCache, digest: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    store, cache = AvatarStore(tmp_path / "avatars"), EngineCache(tmp_path / "engines")
    for mark, name in enumerate(("anna", "bob")):
        write_fake_bundle(tmp_path / "avatars" / name, mark)
    catalog, workers = AvatarCatalog(store), Workers()
    asyncio.run(forget_deleted(catalog, workers, cache))
    cache.mark_served("f" * 64)  # of an avatar that was deleted before
    catalog.list()
    shutil.rmtree(tmp_path / "avatars" / "anna")
    monkeypatch.setattr(EngineCache, "forget", refuse)

    monkeypatch.setattr(deletion, "SWEEP_INTERVAL_S", 0.01)

    def wait(is_done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not is_done() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert is_done()

    async def sweep_until(is_done: Callable[[], bool]) -> None:
        sweeping = asyncio.create_task(keep_forgetting(catalog, workers, cache))
        await asyncio.to_thread(wait, is_done)
        sweeping.cancel()

    asyncio.run(sweep_until(lambda: "anna" in workers.forgotten))
    monkeypatch.undo()  # what could not be removed then can be now
    monkeypatch.setattr(deletion, "SWEEP_INTERVAL_S", 0.01)
    asyncio.run(sweep_until(lambda: cache.served() == {catalog.get("bob").digest}))


def test_a_bundle_that_is_put_back_as_it_was_keeps_its_engines(tmp_path: Path) -> None:
    store, cache = AvatarStore(tmp_path / "avatars"), EngineCache(tmp_path / "engines")
    path = write_fake_bundle(tmp_path / "avatars" / "anna", 1)
    catalog, workers = AvatarCatalog(store), Workers()
    key = CacheKey(catalog.get("anna").digest, "onnxruntime", "1.0")
    cache.replace(key, b"weights")
    shutil.copytree(path, tmp_path / "copy")
    shutil.rmtree(path)
    shutil.move(tmp_path / "copy", path)
    asyncio.run(forget_deleted(catalog, workers, cache))
    assert workers.released == ["anna"]
    assert (tmp_path / "engines" / key.file_name).exists()
