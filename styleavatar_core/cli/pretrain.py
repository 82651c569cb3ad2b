# SPDX-License-Identifier: Apache-2.0
"""``styleavatar pretrain``: what several persons have in common, for avatars to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from styleavatar_core.cli.progress import stop_on_interrupt, training_progress
from styleavatar_core.cli.training_options import (
    BatchSizeOption,
    MinutesOption,
    PrecisionOption,
    PresetOption,
    SeedOption,
    TensorboardOption,
    Vgg19Option,
    chosen_settings,
)

CONSENT_NAME = "consent.json"


def pretrain(
    clips: Annotated[
        list[Path],
        typer.Argument(help="Portrait videos, or datasets that `train` prepared (OUT/dataset)."),
    ],
    out: Annotated[Path, typer.Argument(help="Folder for datasets and checkpoint.")],
    consent: Annotated[
        str, typer.Option(help="The agreement of all persons shown, in a sentence (required).")
    ] = "",
    preset: PresetOption = "lite",
    minutes: MinutesOption = None,
    batch_size: BatchSizeOption = None,
    precision: PrecisionOption = None,
    seed: SeedOption = None,
    tensorboard: TensorboardOption = False,
    vgg19: Vgg19Option = None,
) -> None:
    """Train on videos of several persons; `train --from OUT` then starts a new avatar sooner."""
    from styleavatar_core.provenance.consent import make_consent

    record = make_consent(consent, subject="the persons in the videos")
    from styleavatar_core.training.config import TrainConfig
    from styleavatar_core.training.parallel import joined_ranks
    from styleavatar_core.training.pretrain import pretrain as run
    from styleavatar_core.training.record.checkpoint import TRAINING_FOLDER
    from styleavatar_core.training.record.tensorboard import TENSORBOARD_FOLDER

    config = chosen_settings(
        out,
        TrainConfig(minutes=60.0),
        minutes=minutes,
        batch_size=batch_size,
        precision=precision,
        seed=seed,
    )
    board = out / TRAINING_FOLDER / TENSORBOARD_FOLDER
    with (
        joined_ranks() as is_first,
        stop_on_interrupt(goes_on=True) as should_stop,
        training_progress(board if tensorboard else None) as on_progress,
    ):
        if is_first:
            out.mkdir(parents=True, exist_ok=True)
            (out / CONSENT_NAME).write_text(record.model_dump_json(indent=2) + "\n")
        run(
            clips,
            out,
            preset=preset,
            minutes=config.minutes,
            config=config,
            perceptual_weights=vgg19,
            on_progress=on_progress,
            should_stop=should_stop,
        )
    if is_first:
        typer.echo(f"Start an avatar from it: styleavatar train VIDEO OUT --from {out}")
