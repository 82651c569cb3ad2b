# SPDX-License-Identifier: Apache-2.0
"""Pre-training over several videos, each with a z_id of its own (paper, Sec. 3.4).

What all persons have in common is learned once: an avatar that starts from it (``start``) has only
to learn its own. In some steps z_id is that of nobody in particular, whoever is shown, so that its
static maps fit everybody; this is where a new avatar starts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.errors import InvalidInputError, NotFoundError
from styleavatar_core.networks import GeneratorConfig, get_preset
from styleavatar_core.training.checks import check_before_preparing
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.dataset.prepare import prepare_dataset
from styleavatar_core.training.loop import train
from styleavatar_core.training.parallel import first_rank_first
from styleavatar_core.training.record.checkpoint import TRAINING_FOLDER, checkpoint_in
from styleavatar_core.types import Progress

DATASETS_FOLDER = "datasets"


def pretrain(
    clips: Sequence[Path],
    folder: Path,
    *,
    preset: str = "lite",
    minutes: float = 60.0,
    config: TrainConfig | None = None,
    perceptual_weights: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Path:
    """Trains on several clips. Called again with the same arguments it goes on where it stopped.

    Args:
        clips: Videos, or datasets that ``train`` has prepared for this preset (OUT/dataset).
        folder: Work folder: datasets of the videos, checkpoint, log, pictures.
        preset: Name of the network preset.
        minutes: Budget of the training alone.
        config: Other settings of the training; ``minutes`` wins.
        perceptual_weights: VGG19 weights for the perceptual loss.
        on_progress: Told how far it is.
        should_stop: Asked often.

    Returns:
        The checkpoint, from which ``create_avatar(start=...)`` starts.

    Raises:
        InvalidInputError: There are fewer than two clips, one cannot be used, or they are of
            different face models; or ranks cannot share the batch evenly.
        NotFoundError: One is not there.
        AssetError: The VGG19 weights are not there.
        ConflictError: The folder's training is of other videos, another preset or seed.
        TrainingCanceled: ``should_stop`` said so.
    """
    if len(clips) < 2:
        raise InvalidInputError(
            f"pre-training is over several videos; {len(clips)} given. Give more, or train one "
            "avatar and start others from it"
        )
    generator_config = get_preset(preset)
    settings = replace(config or TrainConfig(), minutes=minutes)
    check_before_preparing(
        folder, generator_config, settings, perceptual_weights=perceptual_weights
    )
    for clip in clips:
        if not clip.exists():
            raise NotFoundError(f"there is neither a video nor a dataset at {clip}")
    datasets = []
    with first_rank_first():
        for number, clip in enumerate(clips):
            if clip.is_dir():
                datasets.append(_open_dataset(clip, generator_config))
                continue
            prepared = folder / DATASETS_FOLDER / f"{number}-{clip.stem}"
            dataset = prepare_dataset(
                clip,
                prepared,
                generator_config,
                checkpoint=checkpoint_in(folder),
                on_progress=on_progress,
                should_stop=should_stop,
            )
            datasets.append(dataset)
    models = {(dataset.info.model_id, dataset.info.model_digest) for dataset in datasets}
    if len(models) > 1:
        names = ", ".join(sorted(model_id for model_id, _ in models))
        raise InvalidInputError(
            f"the datasets are of different face models ({names}), whose texture coordinates mean "
            "different places of a face: prepare all of them with one"
        )
    return train(
        datasets,
        generator_config,
        settings,
        folder / TRAINING_FOLDER,
        perceptual_weights=perceptual_weights,
        on_progress=on_progress,
        should_stop=should_stop,
    )


def _open_dataset(folder: Path, config: GeneratorConfig) -> AvatarDataset:
    """Opens a prepared dataset; refuses one of another preset's sizes."""
    dataset = AvatarDataset(folder)
    sizes = (dataset.info.image_size_px, dataset.info.rendering_size_px)
    wanted = (config.image_size_px, config.rendering_size_px)
    if sizes != wanted:
        raise InvalidInputError(
            f"the dataset {folder} has pictures of {sizes[0]} and renderings of {sizes[1]} pixels; "
            f"preset '{config.name}' needs {wanted[0]} and {wanted[1]}: give its video instead"
        )
    return dataset
