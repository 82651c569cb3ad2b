# SPDX-License-Identifier: Apache-2.0
"""The engine cache where nothing, or not enough, can be written."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from styleavatar_core.engine.cache import EngineCache
from styleavatar_core.engine.cache_key import CacheKey
from tests.unit.core.engine.test_cache import KEY, Builds


def test_a_full_disk_costs_only_the_cache(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    build, cache = Builds(bytes(100_000)), EngineCache(tmp_path)
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # writing more fails, as on ENOSPC
    try:
        assert cache.open(KEY, build, bytes) == build.contents
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "engine could not be cached" in caplog.text
    assert not list(tmp_path.glob("*.engine"))
    assert not list(tmp_path.glob(".*.part"))
    assert cache.open(KEY, build, bytes) == build.contents
    assert list(tmp_path.glob("*.engine"))


def test_an_entry_stays_whole_when_the_disk_is_too_full_for_the_next(tmp_path: Path) -> None:
    build, cache = Builds(), EngineCache(tmp_path)
    cache.open(KEY, build, bytes)
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        cache.replace(KEY, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert cache.load(KEY, bytes) == b"engine"


def test_a_note_that_a_full_disk_refuses_leaves_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = EngineCache(tmp_path)
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        cache.write_note(KEY, "longer than the disk has room for")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "note of an engine could not be kept" in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_read_only_cache_costs_only_the_cache(caplog: pytest.LogCaptureFixture) -> None:
    build, cache = Builds(), EngineCache(Path("/proc/styleavatar"))  # no one may write there
    assert cache.open(KEY, build, bytes) == b"engine"
    assert cache.open(KEY, build, bytes) == b"engine"
    assert build.count == 2
    assert "Set XDG_CACHE_HOME to a writable folder" in caplog.text


def test_a_file_system_without_locks_costs_only_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    build, cache = Builds(), EngineCache(tmp_path)
    assert cache.open(KEY, build, bytes) == cache.open(KEY, build, bytes) == b"engine"
    assert build.count == 1
    assert "cannot be locked" in caplog.text


@pytest.fixture
def shut_folder() -> Iterator[Path]:
    """A folder with two entries that turns read-only, for root as well."""
    with TemporaryDirectory() as name:
        folder, is_root = Path(name), os.geteuid() == 0
        for letter in "ab":
            EngineCache(folder).open(CacheKey(letter * 64, "runtime", "1.0"), Builds(), bytes)
        folder.chmod(0o555)
        if is_root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if is_root:
                os.seteuid(0)
            folder.chmod(0o755)


def test_a_full_cache_that_turned_read_only_still_gives_what_it_holds(
    shut_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build, cache = Builds(), EngineCache(shut_folder, limit_bytes=100)  # room for two
    assert cache.open(KEY, build, bytes) == b"engine"
    assert build.count == 0
    newcomer = CacheKey("c" * 64, "runtime", "1.0")
    assert cache.open(newcomer, build, bytes) == b"engine"
    assert build.count == 1
    cache.write_note(newcomer, "of no use")
    assert cache.read_note(newcomer) is None
    for text in ("engine cache cannot be written to", "engine could not be cached", "note of an"):
        assert text in caplog.text
    assert len(list(shut_folder.glob("*.engine"))) == 2


def test_what_cannot_be_removed_of_a_deleted_person_is_named(shut_folder: Path) -> None:
    cache, digest = EngineCache(shut_folder), "a" * 64
    with pytest.raises(OSError, match=r"Permission denied.* remove them by hand") as caught:
        cache.forget(digest)
    assert KEY.file_name in str(caught.value)
    cache.forget("c" * 64)  # of whom nothing is kept
    euid = os.geteuid()
    os.seteuid(os.getuid())  # the folder is root's, if root runs this
    shut_folder.chmod(0o311)  # what cannot be listed is not taken for empty
    os.seteuid(euid)
    with pytest.raises(PermissionError):
        cache.forget(digest)
