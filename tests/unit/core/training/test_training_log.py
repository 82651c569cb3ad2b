# SPDX-License-Identifier: Apache-2.0
"""The log of figures holds one training, each step once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.loop import train
from styleavatar_core.training.record import reporter
from styleavatar_core.training.record.checkpoint import CHECKPOINT_NAME
from styleavatar_core.training.record.log import LOG_NAME, cut_log, read_log
from tests.fakes.tiny_bundle import tiny_config

CONFIG = TrainConfig(step_count=3, batch_size=1, adversarial_start=1.0, evaluation_share=1.0)


def test_each_step_of_one_training_is_told_once(
    tiny_dataset: AvatarDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporter, "_EVENT_INTERVAL_S", 0.0)
    log = tmp_path / LOG_NAME

    def steps(config: TrainConfig) -> list[int]:
        train([tiny_dataset], tiny_config(), config, tmp_path)
        return [row["step"] for row in read_log(log)]

    assert steps(CONFIG) == [1, 2, 3]
    with log.open("a") as file:  # the process was killed after its checkpoint of step 3
        file.write("\n".join(json.dumps({"step": step}) for step in (4, 5)) + '\n{"step": 6, "l')
    assert steps(replace(CONFIG, step_count=5)) == [1, 2, 3, 4, 5]
    (tmp_path / CHECKPOINT_NAME).unlink()
    assert steps(CONFIG) == [1, 2, 3]


def test_what_a_training_went_back_from_stays_told(tmp_path: Path) -> None:
    log, steps = tmp_path / LOG_NAME, [1, 2, 3, 4, 2, 3, 4, 5]
    rows = [json.dumps({"step": step}) + "\n" for step in steps]
    for checkpoint, kept in ((3, steps[:6]), (0, []), (9, steps)):
        log.write_text("".join(rows) + '{"of": "somebody else"}\n')
        cut_log(log, checkpoint)
        assert [row["step"] for row in read_log(log)] == kept


def test_without_a_log_there_is_nothing_to_read_or_cut(tmp_path: Path) -> None:
    cut_log(tmp_path / LOG_NAME, 0)
    assert read_log(tmp_path / LOG_NAME) == []
