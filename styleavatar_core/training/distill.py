# SPDX-License-Identifier: Apache-2.0
"""A smaller avatar from a finished one: it learns the pictures that the larger one draws.

It needs neither the video nor a second tracking. Faces are drawn from the range that the teacher
was trained on, so that the student has seen that range too and takes over its statistics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from styleavatar_core.avatar.bundle import AvatarBundle, read_bundle
from styleavatar_core.avatar.manifest import AvatarManifest
from styleavatar_core.networks import GeneratorConfig, get_preset
from styleavatar_core.ops.ranks import own_rank
from styleavatar_core.training.avatar_writer import training_record, write_avatar
from styleavatar_core.training.clock import Clock
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.create import DATASET_FOLDER
from styleavatar_core.training.dataset.drawn import draw_dataset
from styleavatar_core.training.loop import train
from styleavatar_core.training.parallel import first_rank_first, require_even_shares, wait_for_all
from styleavatar_core.training.record.checkpoint import (
    TRAINING_FOLDER,
    checkpoint_in,
    read_perceptual_loss,
)
from styleavatar_core.types import Progress

DEFAULT_FRAME_COUNT = 600


def distill(
    teacher_path: Path,
    folder: Path,
    bundle_path: Path,
    *,
    generator_config: GeneratorConfig | None = None,
    minutes: float = 20.0,
    frame_count: int = DEFAULT_FRAME_COUNT,
    seed: int = 0,
    backend: str = "auto",
    config: TrainConfig | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Path:
    """Makes a smaller avatar. Called again with the same arguments it goes on where it stopped.

    Args:
        teacher_path: Bundle of the larger avatar.
        folder: Work folder: the teacher's pictures, checkpoint, log, figures.
        bundle_path: Where the student's bundle goes.
        generator_config: Preset of the student; ``nano`` if None.
        minutes: Budget of the training alone.
        frame_count: Pictures that the teacher draws.
        seed: Of everything random.
        backend: What the teacher is rendered with.
        config: Other settings of the training; ``minutes`` and ``seed`` win.
        on_progress: Told how far it is.
        should_stop: Asked often.

    Returns:
        ``bundle_path``. Its figures compare the student with the teacher, not with the video.

    Raises:
        InvalidInputError: The teacher's pictures are smaller than the student's, or ranks cannot
            share the batch evenly.
        ConflictError: The folder's training is of another teacher, preset, seed or frame count.
        TrainingCanceled: ``should_stop`` said so.
    """
    teacher = read_bundle(teacher_path)
    student = generator_config or get_preset("nano")
    settings = replace(config or TrainConfig(), minutes=minutes, seed=seed)
    require_even_shares(settings.batch_size)
    with first_rank_first():  # the others find a finished dataset
        dataset = draw_dataset(
            teacher,
            folder / DATASET_FOLDER,
            student,
            frame_count=frame_count,
            seed=seed,
            backend=backend,
            checkpoint=checkpoint_in(folder),
            on_progress=on_progress,
            should_stop=should_stop,
        )
    checkpoint = train(
        [dataset],
        student,
        settings,
        folder / TRAINING_FOLDER,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    if own_rank() == 0:
        write_avatar(
            bundle_path,
            folder,
            dataset,
            checkpoint,
            student,
            lambda *measured: _manifest(
                teacher, student, settings, read_perceptual_loss(checkpoint), *measured
            ),
            on_progress=on_progress,
            should_stop=should_stop,
        )
    wait_for_all()
    return bundle_path


def _manifest(
    teacher: AvatarBundle,
    student: GeneratorConfig,
    settings: TrainConfig,
    perceptual_loss: str,
    clock: Clock,
    style_time: float,
    metrics: dict[str, float],
) -> AvatarManifest:
    """Returns the teacher's manifest with the student's networks, training and figures."""
    methods = teacher.manifest.methods.model_copy(update={"perceptual_loss": perceptual_loss})
    origin = {"preset": teacher.manifest.preset, "digest": teacher.digest}
    return teacher.manifest.model_copy(
        update={
            "preset": student.name,
            "generator": student.to_dict(),
            "style_time": style_time,
            "methods": methods,
            "metrics": {f"teacher_{name}": value for name, value in metrics.items()},
            "training": training_record(clock, settings) | {"distilled_from": origin},
            "created_time": datetime.now(UTC),
        }
    )
