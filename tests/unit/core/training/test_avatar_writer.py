# SPDX-License-Identifier: Apache-2.0
"""Measuring and writing takes minutes with large presets: it is told about and can be stopped."""

from itertools import chain, repeat
from pathlib import Path

import pytest

from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.errors import TrainingCanceled
from styleavatar_core.networks import GeneratorConfig
from styleavatar_core.training.avatar_writer import write_avatar
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.loop import train
from styleavatar_core.types import Progress


@pytest.fixture(scope="module")
def checkpoint(
    tiny_dataset: AvatarDataset,
    tiny_config: GeneratorConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    config = TrainConfig(step_count=1, batch_size=1, adversarial_start=1.0)
    return train([tiny_dataset], tiny_config, config, tmp_path_factory.mktemp("training"))


# While z_tmp is chosen, while held-out frames are measured, and at the last picture.
@pytest.mark.parametrize(("picture_count", "told_count"), [(2, 1), (8, 3), (14, 5)])
def test_it_can_be_stopped_between_pictures_and_leaves_no_bundle(
    checkpoint: Path,
    tiny_dataset: AvatarDataset,
    tiny_config: GeneratorConfig,
    tmp_path: Path,
    picture_count: int,
    told_count: int,
) -> None:
    told: list[Progress] = []
    answers = chain(repeat(False, picture_count), [True])
    with pytest.raises(TrainingCanceled):
        write_avatar(
            tmp_path / "avatar",
            tmp_path,
            tiny_dataset,
            checkpoint,
            tiny_config,
            lambda *_: None,
            on_progress=told.append,
            should_stop=lambda: next(answers),
        )
    assert not [path for path in tmp_path.iterdir() if "avatar" in path.name]
    fractions = [event.fraction for event in told]
    assert len(fractions) == told_count
    assert fractions == sorted(set(fractions))
