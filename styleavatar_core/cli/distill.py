# SPDX-License-Identifier: Apache-2.0
"""``styleavatar distill``: a smaller avatar from a finished one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from styleavatar_core.avatar.bundle_path import BUNDLE_FOLDER, find_bundle
from styleavatar_core.cli.progress import stop_on_interrupt, training_progress
from styleavatar_core.cli.training_options import (
    BatchSizeOption,
    MinutesOption,
    PresetOption,
    SeedOption,
    chosen_settings,
)


def distill(
    avatar: Annotated[Path, typer.Argument(help="Avatar bundle, or the folder of `train`.")],
    out: Annotated[Path, typer.Argument(help="Folder for pictures, checkpoint and new avatar.")],
    preset: PresetOption = "nano",
    minutes: MinutesOption = None,
    frames: Annotated[int, typer.Option(min=5, help="Pictures to learn from.")] = 600,
    batch_size: BatchSizeOption = None,
    seed: SeedOption = None,
) -> None:
    """Train a smaller, faster avatar from a finished larger one. The new bundle is OUT/avatar."""
    teacher = find_bundle(avatar)
    from styleavatar_core.avatar.bundle import read_bundle
    from styleavatar_core.networks import get_preset
    from styleavatar_core.training.config import TrainConfig
    from styleavatar_core.training.distill import distill as run
    from styleavatar_core.training.parallel import joined_ranks

    config = chosen_settings(out, TrainConfig(), minutes=minutes, batch_size=batch_size, seed=seed)
    with (
        joined_ranks() as is_first,
        stop_on_interrupt(goes_on=True) as should_stop,
        training_progress(None) as on_progress,
    ):
        bundle = run(
            teacher,
            out,
            out / BUNDLE_FOLDER,
            generator_config=get_preset(preset),
            minutes=config.minutes,
            frame_count=frames,
            seed=config.seed,
            config=config,
            on_progress=on_progress,
            should_stop=should_stop,
        )
    if is_first:
        metrics = read_bundle(bundle, verify=False).manifest.metrics
        typer.echo(
            f"Avatar: {bundle}; {metrics['teacher_psnr_db']:.1f} dB from the larger one's pictures "
            "on faces that it was not trained on"
        )
