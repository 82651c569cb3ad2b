# SPDX-License-Identifier: Apache-2.0
"""The engine cache under everything that happens to caches."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from styleavatar_core.engine import cache_key
from styleavatar_core.engine.cache import EngineCache
from styleavatar_core.engine.cache_key import CacheKey
from styleavatar_core.errors import AssetError

KEY = CacheKey("a" * 64, "runtime", "1.0")

# Opens an entry in a process of its own; says in `log` when it builds, and sleeps while it does.
BUILDER = """
import pathlib, sys, time
from styleavatar_core.engine.cache import EngineCache
from styleavatar_core.engine.cache_key import CacheKey
folder, log, seconds = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), float(sys.argv[3])
def build():
    with log.open("a") as file:
        file.write("built\\n")
    time.sleep(seconds)
    return b"engine"
key = CacheKey("a" * 64, "runtime", "1.0")
print(EngineCache(folder).open(key, build, bytes).decode())
"""


class Builds:
    """Counts builds of one content."""

    def __init__(self, contents: bytes = b"engine") -> None:
        self.contents = contents
        self.count = 0

    def __call__(self) -> bytes:
        self.count += 1
        return self.contents


def builder(folder: Path, log: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILDER, str(folder), str(log), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_entry_is_built_once_and_then_loaded(tmp_path: Path) -> None:
    build, cache = Builds(), EngineCache(tmp_path / "new" / "folder")
    assert cache.open(KEY, build, bytes) == b"engine"
    assert cache.open(KEY, build, bytes) == b"engine"
    assert build.count == 1


@pytest.mark.parametrize(
    "other",
    [
        CacheKey("b" * 64, "runtime", "1.0"),
        CacheKey("a" * 64, "other", "1.0"),
        CacheKey("a" * 64, "runtime", "1.1"),
        CacheKey("a" * 64, "runtime", "1.0", precision="fp16"),
        CacheKey("a" * 64, "runtime", "1.0", batch_size=8),
    ],
)
def test_each_part_of_the_key_tells_entries_apart(tmp_path: Path, other: CacheKey) -> None:
    build, cache = Builds(), EngineCache(tmp_path)
    cache.open(KEY, build, bytes)
    cache.open(other, build, bytes)
    assert build.count == 2


def test_another_version_of_the_graph_is_another_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    name = KEY.file_name
    monkeypatch.setattr(cache_key, "GRAPH_VERSION", cache_key.GRAPH_VERSION + 1)
    assert KEY.file_name != name


def test_names_are_file_names_whatever_a_version_holds() -> None:
    name = CacheKey("a" * 64, "tensorrt", "10.16/sm 90").file_name
    assert "/" not in name
    assert " " not in name


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 100])
def test_a_damaged_entry_is_built_anew(tmp_path: Path, damage: bytes) -> None:
    build, cache = Builds(), EngineCache(tmp_path)
    cache.open(KEY, build, bytes)
    (tmp_path / KEY.file_name).write_bytes(damage)
    assert cache.open(KEY, build, bytes) == b"engine"
    assert build.count == 2
    assert cache.open(KEY, build, bytes) == b"engine"
    assert build.count == 2


def test_an_entry_that_the_runtime_refuses_is_built_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    EngineCache(tmp_path).open(KEY, Builds(b"old"), bytes)

    def load(contents: bytes) -> bytes:
        if contents == b"old":
            raise AssetError("made by another version")
        return contents

    assert EngineCache(tmp_path).open(KEY, Builds(b"new"), load) == b"new"
    assert "cached engine is unusable, building anew" in caplog.text
    assert EngineCache(tmp_path).open(KEY, Builds(b"unused"), load) == b"new"


def test_two_processes_build_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    processes = [builder(tmp_path / "cache", log, 0.5) for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["engine\n"] * 2
    assert log.read_text() == "built\n"


def test_a_builder_that_is_killed_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    log = tmp_path / "log"
    victim = builder(tmp_path / "cache", log, 60)
    wait_for(log)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    heir = builder(tmp_path / "cache", log, 0)
    assert heir.communicate(timeout=60)[0] == "engine\n"
    assert log.read_text() == "built\n" * 2


def test_remains_of_a_dead_builder_are_cleared_away(tmp_path: Path) -> None:
    remains = tmp_path / f".{CacheKey('b' * 64, 'runtime', '1.0').file_name}.part"
    remains.write_bytes(b"half an eng")
    os.utime(remains, (0, 0))
    at_work = tmp_path / f".{CacheKey('c' * 64, 'runtime', '1.0').file_name}.part"
    at_work.write_bytes(b"half an eng")
    EngineCache(tmp_path).open(KEY, Builds(), bytes)
    assert not remains.exists()
    assert at_work.exists()


def test_what_was_built_is_kept_before_it_is_loaded(tmp_path: Path) -> None:
    def load(contents: bytes) -> bytes:
        raise MemoryError("no room for it")

    build, cache = Builds(), EngineCache(tmp_path)
    with pytest.raises(MemoryError):
        cache.open(KEY, build, load)
    assert cache.open(KEY, build, bytes) == b"engine"
    assert build.count == 1


def test_a_note_lies_beside_its_entry_and_counts_with_it(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, limit_bytes=2 * 1032)
    cache.open(KEY, Builds(bytes(1000)), bytes)
    assert cache.read_note(KEY) is None
    cache.write_note(KEY, "as it should be")
    assert cache.read_note(KEY) == "as it should be"
    for path in tmp_path.glob("*.*"):
        os.utime(path, (1, 1))
    cache.open(CacheKey("b" * 64, "runtime", "1.0"), Builds(bytes(2020)), bytes)
    assert [path.name[0] for path in tmp_path.glob("[!.]*")] == ["b"]


def test_the_cache_is_bounded_and_the_longest_unused_goes_first(tmp_path: Path) -> None:
    keys = [CacheKey(letter * 64, "runtime", "1.0") for letter in "abc"]
    cache = EngineCache(tmp_path, limit_bytes=2 * 1032 + 10)
    for age, key in enumerate(keys[:2]):
        cache.open(key, Builds(bytes(1000)), bytes)
        os.utime(tmp_path / key.file_name, (age + 1, age + 1))
    cache.write_note(keys[0], "verdict")
    os.utime((tmp_path / keys[0].file_name).with_suffix(".txt"), (1, 1))
    cache.open(keys[0], Builds(), bytes)  # used again: now the younger one
    assert cache.read_note(keys[0]) == "verdict"  # as this is
    cache.open(keys[2], Builds(bytes(1000)), bytes)
    kept = {path.name for path in tmp_path.glob("*.engine")}
    assert kept == {keys[0].file_name, keys[2].file_name}
    assert cache.read_note(keys[0]) == "verdict"


def test_what_is_larger_than_the_cache_is_not_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = EngineCache(tmp_path, limit_bytes=100)
    with caplog.at_level(logging.WARNING):
        assert len(cache.open(KEY, Builds(bytes(1000)), bytes)) == 1000
    assert "larger than the whole cache" in caplog.text
    assert not list(tmp_path.glob("*.engine"))


def test_deleting_a_person_deletes_their_engines(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    other = CacheKey("b" * 64, "runtime", "1.0")
    for key in (KEY, CacheKey("a" * 64, "other", "1.0"), other):
        cache.open(key, Builds(), bytes)
    (tmp_path / f".{KEY.file_name}.part").write_bytes(b"what a killed builder left")
    cache.forget("a" * 64)
    assert not list(tmp_path.glob(".aaaa*"))
    assert [path.name for path in tmp_path.glob("*.engine")] == [other.file_name]
    EngineCache(tmp_path / "missing").forget("a" * 64)


def test_one_file_that_stays_keeps_no_other_of_a_deleted_person(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    cache.open(KEY, Builds(), bytes)
    cache.mark_served("a" * 64)
    obstacle = tmp_path / f".{KEY.file_name}.part"
    obstacle.mkdir()  # what cannot be unlinked, by root neither
    with pytest.raises(OSError, match="cannot be removed"):
        cache.forget("a" * 64)
    assert not list(tmp_path.glob("*.engine"))
    assert cache.served() == {"a" * 64}  # whoever starts next tries again
    obstacle.rmdir()
    cache.forget("a" * 64)
    assert cache.served() == set()


def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    assert EngineCache(tmp_path / "missing").served() == set()
    folder = tmp_path / "engines"
    folder.symlink_to(folder)  # leads nowhere, for root neither
    with pytest.raises(OSError, match="engines"):
        EngineCache(folder).served()
