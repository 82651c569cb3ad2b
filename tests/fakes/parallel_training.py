# SPDX-License-Identifier: Apache-2.0
"""What each rank does in ``test_parallel``: ``torchrun ... -m tests.fakes.parallel_training``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.errors import InvalidInputError
from styleavatar_core.ops.ranks import own_rank
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.loop import train
from styleavatar_core.training.parallel import first_rank_first, joined_ranks
from tests.fakes.prepared_clip import write_prepared_clip
from tests.fakes.tiny_bundle import tiny_config

# All that a training can do in four steps: the discriminator, its penalty, a look at the held-out
# frames, and frozen feature generators at the end.
CONFIG = TrainConfig(
    step_count=4,
    batch_size=4,
    learning_rate=1e-3,
    adversarial_start=0.0,
    r1_interval=2,
    static_share=0.75,
    evaluation_share=0.5,
    plateau_gain_db=None,
)


def prepare(folder: Path) -> AvatarDataset:
    """Writes the clip if it is not there yet."""
    if not (folder / "dataset.json").exists():
        write_prepared_clip(folder, train_count=16, invalid_columns=20)
    return AvatarDataset(folder)


def main() -> None:
    """Trains by steps, then by time, and says what each rank got."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    with joined_ranks() as is_first:
        with first_rank_first():
            dataset = prepare(folder / "dataset")
        train([dataset], tiny_config(), CONFIG, folder / "shared")
        by_time = TrainConfig(minutes=0.02, plateau_gain_db=None)
        events: list[int] = []
        train(
            [dataset],
            tiny_config(),
            by_time,
            folder / "timed",
            on_progress=lambda event: events.append(event.step or 0),
        )
        try:
            train([dataset], tiny_config(), TrainConfig(batch_size=3), folder / "uneven")
        except InvalidInputError as error:
            refusal = str(error)
        assert is_first == (own_rank() == 0) == bool(events)
        sys.stdout.write(f"rank {own_rank()}: {refusal}\n")


if __name__ == "__main__":
    main()
