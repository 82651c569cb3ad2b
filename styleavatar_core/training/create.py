# SPDX-License-Identifier: Apache-2.0
"""The whole way from a video to an avatar bundle: prepare, train, choose, evaluate, write."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from styleavatar_core.avatar.bundle import write_bundle
from styleavatar_core.avatar.manifest import AvatarManifest, AvatarMethods, AvatarSource
from styleavatar_core.avatar.statistics import ParameterStatistics, measure_closed_lip_gap
from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.data.picture import encode_jpeg
from styleavatar_core.data.spread import spread_evenly
from styleavatar_core.errors import InvalidInputError
from styleavatar_core.evaluation.evaluate import evaluate_held_out, mean_psnr
from styleavatar_core.face3d.camera import parameters_in_crop
from styleavatar_core.networks import GeneratorConfig, get_preset
from styleavatar_core.ops.ranks import own_rank
from styleavatar_core.provenance.consent import ConsentRecord
from styleavatar_core.training.avatar_networks import AvatarNetworks
from styleavatar_core.training.batches import FIXED_STYLE_TIME
from styleavatar_core.training.checkpoint import TRAINING_FOLDER
from styleavatar_core.training.clock import Clock
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.loop import load_average, train
from styleavatar_core.training.parallel import first_rank_first, own_device, wait_for_all
from styleavatar_core.training.prepare import DEFAULT_FRAME_CAP, prepare_dataset
from styleavatar_core.training.reporter import NetworkRenderer
from styleavatar_core.training.schedule import stopped_by
from styleavatar_core.types import FaceParameters, Progress

logger = logging.getLogger(__name__)

DATASET_FOLDER = "dataset"
SHEET_NAME = "evaluation.jpg"
FIGURES_NAME = "evaluation.json"
_STYLE_CANDIDATE_COUNT = 4
_STYLE_FRAME_COUNT = 8
_STYLE_MARGIN_DB = 0.1  # another code must be better by this than the one trained on every pose
_EVALUATED_FRAME_LIMIT = 240


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
        InvalidInputError: The video cannot be used, or there is no consent.
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
    with first_rank_first():  # the others find a finished dataset
        dataset = prepare_dataset(
            video,
            folder / DATASET_FOLDER,
            generator_config,
            face_model=face_model,
            frame_cap=frame_cap,
            matting_weights=matting_weights,
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
        report = on_progress or (lambda _: None)
        report(Progress("export", 0.0, "measuring on the held-out frames"))
        loss = "vgg19" if perceptual_weights else "multi-scale structure (no VGG19 weights given)"
        psnr_db = write_avatar(
            bundle_path,
            folder,
            dataset,
            checkpoint,
            generator_config,
            lambda *measured: _manifest(
                dataset, generator_config, settings, consent, loss, *measured
            ),
        )
        report(Progress("export", 1.0, "the avatar is ready", psnr_db=psnr_db))
    wait_for_all()
    return bundle_path


def write_avatar(
    bundle_path: Path,
    folder: Path,
    dataset: AvatarDataset,
    checkpoint: Path,
    generator_config: GeneratorConfig,
    make_manifest: Callable[[Clock, float, dict[str, float]], AvatarManifest],
) -> float:
    """Chooses z_tmp, measures on the held-out frames and writes the bundle.

    Args:
        bundle_path: Where the bundle goes.
        folder: Takes a sheet of held-out frames and the figures.
        dataset: What was trained on.
        checkpoint: What came of it.
        generator_config: The preset.
        make_manifest: Takes how far the training came, the z_tmp of inference and the figures.

    Returns:
        The PSNR on the held-out frames, dB.
    """
    networks, clock = load_average(checkpoint, generator_config)
    networks.to(own_device())
    renderer = NetworkRenderer(dataset, networks)
    style_time = choose_style_time(dataset, renderer)
    metrics = evaluate_held_out(
        dataset,
        lambda index: renderer(index, style_time),
        frame_limit=_EVALUATED_FRAME_LIMIT,
        sheet_path=folder / SHEET_NAME,
    )
    (folder / FIGURES_NAME).write_text(json.dumps(metrics, indent=2) + "\n")
    told = {name: round(value, 4) for name, value in metrics.items() if np.isfinite(value)}
    middle = dataset.held_out_indices[len(dataset.held_out_indices) // 2]
    write_bundle(
        bundle_path,
        make_manifest(clock, style_time, told),
        generator=_arrays(networks),
        features=_feature_arrays(networks),
        preview_jpeg=encode_jpeg(renderer(middle, style_time)[0]),
        held_out=_in_window(dataset, dataset.held_out_indices),
    )
    return metrics["psnr_db"]


def choose_style_time(dataset: AvatarDataset, renderer: NetworkRenderer) -> float:
    """Selects the z_tmp of inference (Sec. 3.4) on the watched frames."""
    frames = spread_evenly(dataset.watched_indices, _STYLE_FRAME_COUNT)

    def score(time: float) -> float:
        return mean_psnr(dataset, lambda index: renderer(index, time), frames)

    # Codes of frames near the scored ones would win by memory, not by merit.
    until = 0.8 * len(dataset.train_indices) / len(dataset)
    times = [float(t) for t in np.linspace(0.0, until, _STYLE_CANDIDATE_COUNT)]
    best = max(times, key=score)
    return best if score(best) > score(FIXED_STYLE_TIME) + _STYLE_MARGIN_DB else FIXED_STYLE_TIME


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
    train = _in_window(dataset, dataset.train_indices)
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


def _in_window(dataset: AvatarDataset, indices: range) -> list[FaceParameters]:
    """Returns the faces of some frames in the coordinates of the avatar's window."""
    return [parameters_in_crop(dataset.parameters[i], dataset.info.crop) for i in indices]


def training_record(clock: Clock, settings: TrainConfig) -> dict[str, Any]:
    """Returns what a manifest says of the training."""
    return {
        "steps": clock.step,
        "minutes": round(clock.elapsed_s / 60, 3),
        "resume_count": clock.resume_count,
        "stopped_by": stopped_by(clock, settings),
        "started_from": clock.started_from,
        "recoveries": [asdict(recovery) for recovery in clock.recoveries],
        "settings": settings.to_dict(),
    }


def _arrays(networks: AvatarNetworks) -> dict[str, np.ndarray]:
    state = networks.generator.state_dict()
    return {name: value.contiguous().cpu().numpy() for name, value in state.items()}


def _feature_arrays(networks: AvatarNetworks) -> dict[str, np.ndarray]:
    face, background = networks.static_maps()
    return {
        f"{owner}.{name}": getattr(maps, name).detach().contiguous().cpu().numpy()
        for owner, maps in (("face", face), ("background", background))
        for name in ("feature", "rgb_pack")
    }
