# SPDX-License-Identifier: Apache-2.0
"""Disks that are full: told to people, and nothing half done stays."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch import nn

from styleavatar_core.data.dataset import DatasetWriter
from styleavatar_core.errors import TrainingError
from styleavatar_core.training.checkpoint import save_checkpoint
from styleavatar_core.training.clock import Clock


@contextmanager
def nearly_full_disk() -> Iterator[None]:
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # writing more fails, as on ENOSPC
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_dataset_has_all_its_room_from_the_start(tmp_path: Path) -> None:
    DatasetWriter(tmp_path, 40, 64, 32)
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["frames.npy", "masks.npy", "renderings.npy", "uv.npy"]
    for path in files:
        assert 512 * path.stat().st_blocks >= path.stat().st_size > 40_000


def test_without_room_there_is_no_dataset(tmp_path: Path) -> None:
    with nearly_full_disk(), pytest.raises(TrainingError, match=r"dataset of 0\.00 GB.*make room"):
        DatasetWriter(tmp_path, 40, 64, 32)
    assert not list(tmp_path.iterdir())


def test_without_room_the_checkpoint_before_stays(tmp_path: Path) -> None:
    path, network = tmp_path / "checkpoint.safetensors", nn.Linear(64, 64)
    save_checkpoint(path, Clock(), {"network": network}, {}, "same")
    before = path.read_bytes()
    nn.init.zeros_(network.weight)
    with nearly_full_disk(), pytest.raises(TrainingError, match=r"checkpoint.*make room"):
        save_checkpoint(path, Clock(), {"network": network}, {}, "same")
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
