# SPDX-License-Identifier: Apache-2.0
"""Disks that are full: told to people, and nothing half done stays."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from styleavatar_core.data.dataset import DatasetWriter
from styleavatar_core.data.dataset_info import read_info
from styleavatar_core.errors import TrainingError
from styleavatar_core.training.avatar_networks import AvatarNetworks
from styleavatar_core.training.avatar_writer import write_avatar
from styleavatar_core.training.clock import Clock
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.loop import train
from styleavatar_core.training.record import good_checkpoint, reporter
from styleavatar_core.training.record.checkpoint import save_checkpoint
from styleavatar_core.training.record.log import LOG_NAME
from styleavatar_core.types import Progress
from tests.fakes.prepared_clip import write_prepared_clip
from tests.fakes.tiny_bundle import tiny_config


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


def test_a_dataset_without_room_for_its_end_is_none(tmp_path: Path) -> None:
    clip, folder = write_prepared_clip(tmp_path / "clip"), tmp_path / "dataset"
    writer, valid = DatasetWriter(folder, 20, 128, 64), np.ones((128, 128), np.uint8)
    with nearly_full_disk(), pytest.raises(TrainingError, match=r"end of a.*make room") as caught:
        writer.finish(clip.info, clip.parameters, valid)
    assert caught.value.reason == "NOT_WRITTEN"
    assert read_info(folder) is None


def test_without_room_a_training_goes_on_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reporter, "_EVENT_INTERVAL_S", 0.0)
    clip, networks = write_prepared_clip(tmp_path / "clip"), AvatarNetworks(tiny_config()).eval()
    told: list[Progress] = []
    config = TrainConfig(preview_interval_s=0.0)
    reports = reporter.TrainingReporter([clip], networks, config, tmp_path, told.append)
    log = tmp_path / LOG_NAME
    log.write_text("{}\n" * 3334)  # as long as files may be here

    def report() -> None:
        reports.after_step(Clock(step=1), 0.5, 1e-3, {"l1": 1.0})

    for count in (2, 4):
        with nearly_full_disk():
            report()
            report()
        assert [record.levelname for record in caplog.records] == ["WARNING"] * count
        report()
        assert [json.loads(line) for line in log.read_text().splitlines()][-1]["step"] == 1
        log.write_text("{}\n" * 3330)  # what is torn leaves no half line
    assert len(told) == 6


def test_without_room_for_what_is_measured_there_is_no_avatar(tmp_path: Path) -> None:
    clip, work = write_prepared_clip(tmp_path / "clip"), tmp_path / "work"
    config = TrainConfig(step_count=1, batch_size=1, adversarial_start=1.0)
    checkpoint = train([clip], tiny_config(), config, work)
    told = pytest.raises(TrainingError, match=r"what was measured cannot be written.*make room")
    with nearly_full_disk(), told as caught:
        write_avatar(work / "avatar", work, clip, checkpoint, tiny_config(), lambda *_: None)
    assert caught.value.reason == "NOT_WRITTEN"
    assert not (work / "avatar").exists()


def test_without_room_the_checkpoint_before_stays(tmp_path: Path) -> None:
    path, network = tmp_path / "checkpoint.safetensors", nn.Linear(64, 64)
    save_checkpoint(path, Clock(), {"network": network}, {}, "same")
    before = path.read_bytes()
    nn.init.zeros_(network.weight)
    with nearly_full_disk(), pytest.raises(TrainingError, match=r"checkpoint.*make room"):
        save_checkpoint(path, Clock(), {"network": network}, {}, "same")
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_without_room_for_a_good_checkpoint_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: Path) -> None:
        raise PermissionError("this file system has no second names")

    monkeypatch.setattr(good_checkpoint.os, "link", link)
    latest = tmp_path / "checkpoint.safetensors"
    latest.write_bytes(bytes(20_000))
    good = good_checkpoint.GoodCheckpoint(latest, is_new=True)
    with nearly_full_disk(), pytest.raises(TrainingError, match=r"candidate.*make room") as caught:
        good.after_save(0)
    assert caught.value.reason == "NOT_WRITTEN"
    assert [file.name for file in tmp_path.iterdir()] == [latest.name]
    good.after_save(0)
    assert good.path.read_bytes() == latest.read_bytes()
