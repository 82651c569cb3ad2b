# SPDX-License-Identifier: Apache-2.0
"""A training that is taken up with other settings than it was begun with."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from styleavatar_core.cli.training_options import chosen_settings
from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.errors import ConflictError, TrainingCanceled
from styleavatar_core.training.config import LossWeights, TrainConfig
from styleavatar_core.training.loop import load_average, train
from styleavatar_core.training.record.checkpoint import (
    CHECKPOINT_NAME,
    TRAINING_FOLDER,
    read_settings,
)
from tests.fakes.tiny_bundle import tiny_config

CONFIG = TrainConfig(step_count=4, batch_size=2, adversarial_start=1.0, evaluation_share=1.0)


@pytest.fixture
def begun(tiny_dataset: AvatarDataset, tmp_path: Path) -> Path:
    """The folder of a training that was stopped after two of four steps."""
    polls = iter([False, True])
    folder = tmp_path / TRAINING_FOLDER
    with pytest.raises(TrainingCanceled):
        train([tiny_dataset], tiny_config(), CONFIG, folder, should_stop=lambda: next(polls))
    return folder


def test_what_differs_is_told(
    tiny_dataset: AvatarDataset, begun: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train([tiny_dataset], tiny_config(), CONFIG, begun)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    config = replace(CONFIG, step_count=5, batch_size=1)
    train([tiny_dataset], tiny_config(), config, begun, start=Path("eve.zip"))
    settings, start = (record.getMessage() for record in caplog.records if record.levelno > 20)
    assert settings.endswith("before: step_count 4, now 5; batch_size 2, now 1")
    assert "eve.zip, given to start from, is not looked at" in start
    assert read_settings(begun / CHECKPOINT_NAME) == config


def test_a_smaller_budget_that_is_used_up_makes_no_unfinished_avatar(
    tiny_dataset: AvatarDataset, begun: Path
) -> None:
    for less in (replace(CONFIG, step_count=2), replace(CONFIG, step_count=1)):
        with pytest.raises(ConflictError, match=r"2 steps, .* of a budget of 4 steps: the . steps"):
            train([tiny_dataset], tiny_config(), less, begun)
    fewer = replace(CONFIG, step_count=3)
    path = train([tiny_dataset], tiny_config(), fewer, begun)
    assert load_average(path, tiny_config())[1].step == 3
    train([tiny_dataset], tiny_config(), fewer, begun)  # finished: its bundle can be made again


def test_a_smaller_budget_of_time_is_refused_likewise(
    tiny_dataset: AvatarDataset, tmp_path: Path
) -> None:
    config, polls = replace(CONFIG, step_count=None, minutes=60.0), iter([False, True])
    with pytest.raises(TrainingCanceled):
        train([tiny_dataset], tiny_config(), config, tmp_path, should_stop=lambda: next(polls))
    with pytest.raises(ConflictError, match=r"of 60 minutes: the 1e-05 minutes that are given"):
        train([tiny_dataset], tiny_config(), replace(config, minutes=1e-5), tmp_path)


def test_a_finished_training_is_finished_under_a_smaller_budget_too(
    tiny_dataset: AvatarDataset, tmp_path: Path
) -> None:
    config = replace(CONFIG, step_count=None, minutes=0.005)
    path = train([tiny_dataset], tiny_config(), config, tmp_path)
    steps = load_average(path, tiny_config())[1].step
    train([tiny_dataset], tiny_config(), replace(config, minutes=0.001), tmp_path)
    assert load_average(path, tiny_config())[1].step == steps


def test_a_checkpoint_that_does_not_say_goes_on(tiny_dataset: AvatarDataset, begun: Path) -> None:
    path = begun / CHECKPOINT_NAME
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    del metadata["settings"]
    save_file(load_file(path), path, metadata=metadata)
    assert read_settings(path) is None
    train([tiny_dataset], tiny_config(), CONFIG, begun)
    assert read_settings(path) == CONFIG


def test_commands_go_on_with_what_a_training_was_begun_with(begun: Path) -> None:
    usual = TrainConfig(minutes=60.0)
    nothing = {"minutes": None, "batch_size": None}
    assert chosen_settings(begun.parent, usual, **nothing) == CONFIG
    given = chosen_settings(begun.parent, usual, minutes=None, batch_size=8)
    assert given == replace(CONFIG, batch_size=8)
    longer = chosen_settings(begun.parent, usual, minutes=5.0, batch_size=None)
    assert longer == replace(CONFIG, minutes=5.0, step_count=None)
    assert chosen_settings(begun, usual, **nothing) == usual


def test_settings_of_other_versions_are_read() -> None:
    config = TrainConfig(batch_size=5, loss_weights=LossWeights(mask=0.5))
    values = config.to_dict() | {"of_tomorrow": 1}
    values["loss_weights"] |= {"of_tomorrow": 1}
    del values["seed"], values["loss_weights"]["l1"]
    assert TrainConfig.from_dict(values) == config
