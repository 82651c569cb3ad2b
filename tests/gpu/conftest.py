# SPDX-License-Identifier: Apache-2.0
"""Engines on a real GPU, judged by torch in fp32 on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from styleavatar_core.avatar.bundle import AvatarBundle, read_bundle
from styleavatar_core.engine import backends
from tests.fakes.nano_bundle import write_nano_bundle


@pytest.fixture(autouse=True)
def device() -> str:
    """Name of the GPU."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device is visible")
    return torch.cuda.get_device_name()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty engine cache, this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def opens_plain_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is compiled, which takes long: one test does."""
    monkeypatch.setattr(backends, "open_faster_form", lambda open_form, *_: open_form(False))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[AvatarBundle, AvatarBundle]:
    """Two untrained avatars of one preset."""
    folder = tmp_path_factory.mktemp("bundles")
    paths = [write_nano_bundle(folder / f"avatar{seed}", seed=seed) for seed in (1, 2)]
    first, second = map(read_bundle, paths)
    return first, second
