# SPDX-License-Identifier: Apache-2.0
"""The whole way from a video to an avatar bundle: prepare, train, choose, evaluate, write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from styleavatar_core.avatar.manifest import AvatarManifest, AvatarMethods, AvatarSource
from styleavatar_core.avatar.statistics import ParameterStatistics, measure_closed_lip_gap
from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.errors import InvalidInputError
from styleavatar_core.networks import GeneratorConfig, get_preset
from styleavatar_core.ops.ranks import own_rank
from styleavatar_core.provenance.consent import ConsentRecord
from styleavatar_core.training.avatar_writer import faces_in_window, training_record, write_avatar
from styleavatar_core.training.checks import check_before_preparing
from styleavatar_core.training.clock import Clock
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.dataset.prepare import DEFAULT_FRAME_CAP, prepare_dataset
from styleavatar_core.training.loop import train
from styleavatar_core.training.parallel import first_rank_first, wait_for_all
from styleavatar_core.training.record.checkpoint import (
    TRAINING_FOLDER,
    checkpoint_in,
    read_perceptual_loss,
)
from styleavatar_core.types import Progress

DATASET_FOLDER = "dataset"


def create_avatar(
    video: Path,
    folder: Path,
    bundle_path: Path,
    *,
    preset: str = "lite",
    minutes: float = 20.0,
    consent: ConsentRecord | None = None,
    adversarial: bool = True,
    seed: int = 0,
    config: TrainConfig | None = None,
    face_model: str = "",
    frame_cap: int = DEFAULT_FRAME_CAP,
    perceptual_weights: Path | None = None,
    matting_weights: Path | None = None,
    start: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Path:
    """Makes an avatar. Called again with the same arguments it goes on where it was stopped.

    Args:
        video: The clip.
        folder: Work folder: dataset, checkpoint, log, pictures.
        bundle_path: Where the bundle goes, a directory or a name ending in ``.zip``.
        preset: Name of the network preset.
        minutes: Budget of the training alone.
        consent: Who agreed; required.
        adversarial: Whether the discriminator joins in the last part.
        seed: Of everything random.
        config: Other settings of the training; ``minutes``, ``seed`` and ``adversarial`` win.
        face_model: Id of the face model to track and drive with; the built-in one if empty.
        frame_cap: Most frames to keep.
        perceptual_weights: VGG19 weights for the perceptual loss.
        matting_weights: Robust Video Matting (TorchScript).
        start: Another training or avatar of this preset to start from, see ``start``.
        on_progress: Told how far it is.
        should_stop: Asked often.

    Returns:
        ``bundle_path``.

    Raises:
        InvalidInputError: The video cannot be used, there is no consent, or ranks cannot share the
            batch evenly.
        AssetError: A file that is given is not there.
        NotFoundError: There is nothing to start from.
        ConflictError: The folder's training was of another video, face model, preset,
            seed or perceptual loss; or its budget was larger, and this one is used up.
        TrainingCanceled: ``should_stop`` said so.
    """
    if consent is None:
        raise InvalidInputError(
            "an avatar is only made with the consent of the person shown: give a consent record",
            reason="CONSENT_MISSING",
        )
    generator_config = get_preset(preset)
    settings = replace(config or TrainConfig(), minutes=minutes, seed=seed)
    if not adversarial:
        settings = replace(settings, adversarial_start=1.0)
    check_before_preparing(
        folder,
        generator_config,
        settings,
        perceptual_weights=perceptual_weights,
        matting_weights=matting_weights,
        start=start,
        face_model=face_model,
    )
    with first_rank_first():  # the others find a finished dataset
        dataset = prepare_dataset(
            video,
            folder / DATASET_FOLDER,
            generator_config,
            face_model=face_model,
            frame_cap=frame_cap,
            matting_weights=matting_weights,
            checkpoint=checkpoint_in(folder),
            on_progress=on_progress,
            should_stop=should_stop,
        )
    checkpoint = train(
        [dataset],
        generator_config,
        settings,
        folder / TRAINING_FOLDER,
        perceptual_weights=perceptual_weights,
        start=start,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    if own_rank() == 0:
        loss = read_perceptual_loss(checkpoint)
        write_avatar(
            bundle_path,
            folder,
            dataset,
            checkpoint,
            generator_config,
            lambda *measured: _manifest(
                dataset, generator_config, settings, consent, loss, *measured
            ),
            on_progress=on_progress,
            should_stop=should_stop,
        )
    wait_for_all()
    return bundle_path


def _manifest(
    dataset: AvatarDataset,
    generator_config: GeneratorConfig,
    settings: TrainConfig,
    consent: ConsentRecord,
    perceptual_loss: str,
    clock: Clock,
    style_time: float,
    metrics: dict[str, float],
) -> AvatarManifest:
    info = dataset.info
    train = faces_in_window(dataset, dataset.train_indices)
    return AvatarManifest(
        preset=generator_config.name,
        generator=generator_config.to_dict(),
        style_time=style_time,
        model_id=info.model_id,
        model_digest=info.model_digest,
        identity=info.identity,
        texture=info.texture,
        window=info.window,
        statistics=ParameterStatistics.from_parameters(
            train, info.crop, closed_lip_gap=measure_closed_lip_gap(train)
        ).to_dict(),
        metrics=metrics,
        consent=consent,
        source=AvatarSource(
            file_name=info.source_name,
            sha256=info.source_sha256,
            width=info.source_width,
            height=info.source_height,
            fps=info.fps,
            train_frame_count=len(dataset.train_indices),
            held_out_frame_count=len(dataset.held_out_indices),
        ),
        methods=AvatarMethods(
            landmarks=info.landmarks, matting=info.matting, perceptual_loss=perceptual_loss
        ),
        training=training_record(clock, settings),
    )
