# SPDX-License-Identifier: Apache-2.0
"""Engines are kept beside what goes on, and only those of avatars that are still there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from styleavatar_core.avatar.bundle import AvatarBundle, read_bundle
from styleavatar_core.engine import keeping
from styleavatar_core.engine.cache import EngineCache
from styleavatar_core.engine.cache_key import CacheKey
from styleavatar_core.engine.keeping import keep_beside, wait_until_kept
from styleavatar_core.engine.selection import open_engine
from styleavatar_core.export.parity import random_input
from tests.fakes.nano_bundle import write_nano_bundle

KEY = CacheKey("a" * 64, "runtime", "1.0")


@pytest.fixture
def go() -> Iterator[Event]:
    """Nothing is kept before it is set."""
    event = Event()
    keeping._writer.submit(event.wait, 60)
    yield event
    event.set()
    wait_until_kept()


@pytest.fixture
def bundle(tmp_path: Path) -> AvatarBundle:
    return read_bundle(write_nano_bundle(tmp_path / "avatar"))


def entries(cache: Path) -> list[str]:
    return [path.name for path in cache.glob("[!.]*")]


def test_an_engine_renders_before_it_is_kept(bundle: AvatarBundle, cache: Path, go: Event) -> None:
    engine = open_engine(bundle, "openvino", thread_count=1)
    assert engine.render(random_input(engine)).image.any()
    assert entries(cache) == []
    go.set()
    wait_until_kept()
    assert len(entries(cache)) == 1


def test_an_engine_that_is_closed_meanwhile_is_kept(
    bundle: AvatarBundle, cache: Path, go: Event
) -> None:
    engine = open_engine(bundle, "openvino", thread_count=1)
    sample = random_input(engine)
    expected = engine.render(sample).image
    engine.close()
    go.set()
    wait_until_kept()
    again = open_engine(bundle, "openvino", thread_count=1)
    assert (again.render(sample).image == expected).all()
    assert len(entries(cache)) == 1


def test_nothing_is_kept_of_an_avatar_that_is_deleted_meanwhile(
    bundle: AvatarBundle, cache: Path, go: Event
) -> None:
    open_engine(bundle, "openvino", thread_count=1)
    shutil.rmtree(bundle.path)
    go.set()
    wait_until_kept()
    assert entries(cache) == []


def test_one_that_cannot_be_kept_costs_only_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> bytes:
        raise RuntimeError("cannot be exported")

    cache = EngineCache(tmp_path)
    keep_beside(cache, KEY, fail, lambda: True)
    keep_beside(cache, CacheKey("b" * 64, "runtime", "1.0"), lambda: b"engine", lambda: True)
    wait_until_kept()
    assert "engine could not be kept" in caplog.text
    assert [name[0] for name in entries(tmp_path)] == ["b"]
