# SPDX-License-Identifier: Apache-2.0
"""From a finished training to a bundle: chooses z_tmp, measures on the held-out frames, writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from styleavatar_core.avatar.bundle import write_bundle
from styleavatar_core.avatar.manifest import AvatarManifest
from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.data.picture import encode_jpeg
from styleavatar_core.data.room import cannot_write
from styleavatar_core.data.spread import spread_evenly
from styleavatar_core.errors import TrainingCanceled
from styleavatar_core.evaluation.evaluate import evaluate_held_out, mean_psnr, pick_frames
from styleavatar_core.face3d.camera import parameters_in_crop
from styleavatar_core.networks import GeneratorConfig
from styleavatar_core.training.avatar_networks import AvatarNetworks
from styleavatar_core.training.clock import Clock
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.loop import load_average
from styleavatar_core.training.parallel import own_device
from styleavatar_core.training.record.reporter import NetworkRenderer
from styleavatar_core.training.samples.batches import FIXED_STYLE_TIME
from styleavatar_core.training.schedule import stopped_by
from styleavatar_core.types import ByteArray, FaceParameters, Progress

SHEET_NAME = "evaluation.jpg"
FIGURES_NAME = "evaluation.json"
_STYLE_CANDIDATE_COUNT = 4
_STYLE_FRAME_COUNT = 8
_STYLE_MARGIN_DB = 0.1  # another code must be better by this than the one trained on every pose
_EVALUATED_FRAME_LIMIT = 240


def write_avatar(
    bundle_path: Path,
    folder: Path,
    dataset: AvatarDataset,
    checkpoint: Path,
    generator_config: GeneratorConfig,
    make_manifest: Callable[[Clock, float, dict[str, float]], AvatarManifest],
    *,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> None:
    """Chooses z_tmp, measures on the held-out frames and writes the bundle.

    Args:
        bundle_path: Where the bundle goes.
        folder: Takes a sheet of held-out frames and the figures.
        dataset: What was trained on.
        checkpoint: What came of it.
        generator_config: The preset.
        make_manifest: Takes how far the training came, the z_tmp of inference and the figures.
        on_progress: Told how far it is.
        should_stop: Asked before each picture.

    Raises:
        TrainingCanceled: ``should_stop`` said so; there is no bundle, or the one before.
        TrainingError: The disk has no room; likewise.
    """
    report = on_progress or (lambda _: None)
    networks, clock = load_average(checkpoint, generator_config)
    networks.to(own_device())
    renderer = NetworkRenderer(dataset, networks)

    def render(index: int, style_time: float) -> tuple[ByteArray, ByteArray]:
        if should_stop is not None and should_stop():
            raise TrainingCanceled
        return renderer(index, style_time)

    report(Progress("export", 0.0, "choosing z_tmp"))
    style_time = choose_style_time(dataset, render)
    measured_indices = pick_frames(dataset, _EVALUATED_FRAME_LIMIT)

    def tell(index: int, _picture: ByteArray) -> None:
        number, count = measured_indices.index(index) + 1, len(measured_indices)
        report(Progress("export", number / (count + 1), f"held-out frame {number} of {count}"))

    try:
        metrics = evaluate_held_out(
            dataset,
            lambda index: render(index, style_time),
            frame_limit=_EVALUATED_FRAME_LIMIT,
            on_output=tell,
            sheet_path=folder / SHEET_NAME,
        )
        measured = {name: value for name, value in metrics.items() if np.isfinite(value)}
        (folder / FIGURES_NAME).write_text(json.dumps(measured, indent=2) + "\n")
    except OSError as error:
        raise cannot_write("what was measured", folder, error) from error
    told = {name: round(value, 4) for name, value in measured.items()}
    middle = dataset.held_out_indices[len(dataset.held_out_indices) // 2]
    write_bundle(
        bundle_path,
        make_manifest(clock, style_time, told),
        generator=_arrays(networks),
        features=_feature_arrays(networks),
        preview_jpeg=encode_jpeg(render(middle, style_time)[0]),
        held_out=faces_in_window(dataset, dataset.held_out_indices),
    )
    report(Progress("export", 1.0, "the avatar is ready", psnr_db=metrics["psnr_db"]))


def choose_style_time(
    dataset: AvatarDataset, render: Callable[[int, float], tuple[ByteArray, ByteArray]]
) -> float:
    """Selects the z_tmp of inference (Sec. 3.4) on the watched frames."""
    frames = spread_evenly(dataset.watched_indices, _STYLE_FRAME_COUNT)

    def score(time: float) -> float:
        return mean_psnr(dataset, lambda index: render(index, time), frames)

    # Codes of frames near the scored ones would win by memory, not by merit.
    until = 0.8 * len(dataset.train_indices) / len(dataset)
    times = [float(t) for t in np.linspace(0.0, until, _STYLE_CANDIDATE_COUNT)]
    best = max(times, key=score)
    return best if score(best) > score(FIXED_STYLE_TIME) + _STYLE_MARGIN_DB else FIXED_STYLE_TIME


def faces_in_window(dataset: AvatarDataset, indices: range) -> list[FaceParameters]:
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
