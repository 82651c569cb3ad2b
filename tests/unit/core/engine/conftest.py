# SPDX-License-Identifier: Apache-2.0
"""One thread: on shared cores, OpenMP threads that wait for each other take ten times as long."""

from pathlib import Path

import pytest
import torch

from styleavatar_core.avatar.bundle import AvatarBundle, read_bundle
from styleavatar_core.engine.cache import cache_folder
from tests.fakes.nano_bundle import write_nano_bundle

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> AvatarBundle:
    """An untrained avatar, for all tests that do not change it."""
    return read_bundle(write_nano_bundle(tmp_path_factory.mktemp("bundle") / "avatar"))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Random numbers of a test are its own, whichever ran before it in the same process."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of an empty engine cache, this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder()
