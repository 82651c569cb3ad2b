# SPDX-License-Identifier: Apache-2.0
"""``styleavatar train``: an avatar from a video, without any service."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from styleavatar_core.avatar.bundle_path import BUNDLE_FOLDER
from styleavatar_core.cli.face_model_option import FaceModelOption
from styleavatar_core.cli.progress import stop_on_interrupt, training_progress
from styleavatar_core.cli.training_options import (
    YES_OR_BEGUN,
    BatchSizeOption,
    MinutesOption,
    PrecisionOption,
    PresetOption,
    SeedOption,
    TensorboardOption,
    Vgg19Option,
    chosen_settings,
)
from styleavatar_core.errors import ConflictError
from styleavatar_core.types import Progress


def train(
    video: Annotated[Path, typer.Argument(help="Portrait video of one person.")],
    out: Annotated[
        Path, typer.Argument(help="Folder for the dataset, the checkpoints and the avatar.")
    ],
    consent: Annotated[
        str, typer.Option(help="The agreement of the person shown, in a sentence (required).")
    ] = "",
    subject: Annotated[str, typer.Option(help="Name of the person shown.")] = "",
    source: Annotated[str, typer.Option(help="Where the video comes from.")] = "",
    preset: PresetOption = "lite",
    minutes: MinutesOption = None,
    adversarial: Annotated[
        bool | None,
        typer.Option(
            help="Whether the discriminator joins in the last part.", show_default=YES_OR_BEGUN
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Start from OUT of another train or pretrain, a checkpoint or a bundle."
        ),
    ] = None,
    stop_early: Annotated[
        bool | None,
        typer.Option(
            help="Whether to finish sooner when quality has stopped rising.",
            show_default=YES_OR_BEGUN,
        ),
    ] = None,
    batch_size: BatchSizeOption = None,
    precision: PrecisionOption = None,
    seed: SeedOption = None,
    tensorboard: TensorboardOption = False,
    resume: Annotated[
        bool, typer.Option(help="Go on from the checkpoint in OUT, if there is one.")
    ] = True,
    face_model: FaceModelOption = "",
    vgg19: Vgg19Option = None,
    matting: Annotated[
        Path | None, typer.Option(help="Robust Video Matting (TorchScript file).")
    ] = None,
) -> None:
    """Train an avatar from a portrait video. The finished bundle is OUT/avatar."""
    from styleavatar_core.provenance.consent import make_consent

    record = make_consent(consent, subject=subject, source_description=source)
    from styleavatar_core.face3d.library import choose_face_model
    from styleavatar_core.tracking.capture_files import REPORT_NAME
    from styleavatar_core.training.avatar_writer import FIGURES_NAME
    from styleavatar_core.training.config import TrainConfig
    from styleavatar_core.training.create import DATASET_FOLDER, create_avatar
    from styleavatar_core.training.dataset.prepare import CAPTURE_FOLDER
    from styleavatar_core.training.parallel import joined_ranks
    from styleavatar_core.training.record.checkpoint import TRAINING_FOLDER
    from styleavatar_core.training.record.tensorboard import TENSORBOARD_FOLDER

    if not resume and (out / TRAINING_FOLDER).exists():
        raise ConflictError(
            f"{out} already holds a training; remove it, use another folder, or leave out "
            "--no-resume to go on"
        )
    usual = TrainConfig()
    config = chosen_settings(
        out, usual, minutes=minutes, batch_size=batch_size, precision=precision, seed=seed
    )
    if stop_early is not None:
        config = replace(config, plateau_gain_db=usual.plateau_gain_db if stop_early else None)
    if adversarial is not None:
        start_share = usual.adversarial_start if adversarial else 1.0
        config = replace(config, adversarial_start=start_share)
    board = out / TRAINING_FOLDER / TENSORBOARD_FOLDER
    with (
        joined_ranks() as is_first,
        stop_on_interrupt(goes_on=resume) as should_stop,
        training_progress(board if tensorboard else None) as on_progress,
    ):
        bundle = create_avatar(
            video,
            out,
            out / BUNDLE_FOLDER,
            preset=preset,
            minutes=config.minutes,
            consent=record,
            seed=config.seed,
            face_model=face_model and choose_face_model(face_model).model_id,
            config=config,
            start=start,
            perceptual_weights=vgg19,
            matting_weights=matting,
            on_progress=_telling(on_progress, out / DATASET_FOLDER / CAPTURE_FOLDER / REPORT_NAME),
            should_stop=should_stop,
        )
    if is_first:
        _show(bundle, out / FIGURES_NAME)


def _telling(
    on_progress: Callable[[Progress], None], capture_report: Path
) -> Callable[[Progress], None]:
    """Prints the capture report once, after tracking and before anything is trained."""
    told = False

    def show(event: Progress) -> None:
        nonlocal told
        if event.stage == "rendering" and not told:
            told = True
            with contextlib.suppress(OSError):  # it could not be written, as the log says
                typer.echo(capture_report.read_text())
        on_progress(event)

    return show


def _show(bundle: Path, figures_path: Path) -> None:
    """Prints what came out, and with which models of others."""
    from styleavatar_core.avatar.bundle import read_bundle
    from styleavatar_core.cli.evaluate import print_figures

    manifest = read_bundle(bundle).manifest
    console = Console()
    methods = manifest.methods
    console.print(
        f"Used: landmarks {methods.landmarks}; matting {methods.matting}; "
        f"perceptual loss {methods.perceptual_loss}."
    )
    print_figures(figures_path, console)
    console.print(f"Avatar: [bold]{bundle}[/bold]")
