# SPDX-License-Identifier: Apache-2.0
"""What the quality benchmark compares: which variants there are, how each is trained and judged."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.engine.avatar_renderer import AvatarRenderer
from styleavatar_core.evaluation.evaluate import evaluate_frames
from styleavatar_core.evaluation.learned_metrics import LearnedMetrics
from styleavatar_core.face3d.camera import parameters_in_crop
from styleavatar_core.networks import ABLATIONS, PUBLISHED, TRIED, ablate, get_preset
from styleavatar_core.provenance.consent import make_consent
from styleavatar_core.training.avatar_networks import AvatarNetworks
from styleavatar_core.training.config import LossWeights, TrainConfig
from styleavatar_core.training.create import create_avatar
from styleavatar_core.training.loop import load_average, train
from styleavatar_core.training.record.checkpoint import checkpoint_in
from styleavatar_core.types import ByteArray

BASELINES = {"nearest_sample": "nearest_sample_", "mean_frame": "mean_frame_"}
DEFAULT_VARIANTS = ("full", *BASELINES)
VARIANT_SETS = {
    "all": [*ABLATIONS, *BASELINES],
    "published": ["full", *PUBLISHED],
    "tried": ["full", *TRIED],
}
TRAINED_VARIANTS = (*ABLATIONS, *PUBLISHED, *TRIED)
# Boxes in the middle and everybody where the clip has them: nothing here moves with a window.
_STILL: dict[str, Any] = {"centered_share": 1.0, "apart_share": 0.0}
_TRAINED_OTHERWISE: dict[str, dict[str, Any]] = {
    "no_sliding_window": _STILL,
    "no_adversarial": {"adversarial_start": 1.0},
    "single_styleunet": _STILL,
    "dvp": _STILL,
    "dnr": _STILL,
    "published_style": {"fixed_style_share": 0.0},
    "published_poses": {"tilt_share": 0.0},
    "published_losses": {"loss_weights": LossWeights(perceptual=0.0, structure=0.0)},
}
Render = Callable[[int], tuple[ByteArray, ByteArray]]


@dataclass(frozen=True)
class Options:
    """What all clips have in common."""

    preset: str
    config: TrainConfig
    variants: list[str]
    driver: Path | None
    frame_limit: int | None
    moved_frames: int
    lpips_weights: Path | None
    fid_weights: Path | None


def train_variant(
    clip: Path, dataset: AvatarDataset, work: Path, variant: str, options: Options
) -> tuple[AvatarNetworks, float]:
    """Trains a variant, or takes up its training; returns the networks and the minutes."""
    generator_config = ablate(get_preset(options.preset), variant)
    config = options.config
    if variant == "full":
        consent = make_consent("This clip was given to this benchmark for measuring.")
        create_avatar(
            clip,
            work,
            work / "avatar",
            preset=options.preset,
            minutes=config.minutes,
            config=config,
            consent=consent,
        )
        checkpoint = checkpoint_in(work)
    else:
        config = replace(config, **_TRAINED_OTHERWISE.get(variant, {}))
        checkpoint = train([dataset], generator_config, config, work / f"training-{variant}")
    networks, clock = load_average(checkpoint, generator_config)
    return networks, clock.elapsed_s / 60


def evaluate_variant(
    dataset: AvatarDataset, render: Render, bundle: Path | None, options: Options
) -> dict[str, float]:
    """Measures a variant by its networks, or by its engine, as users see it, if it has a bundle."""
    learned = LearnedMetrics(lpips_weights=options.lpips_weights, fid_weights=options.fid_weights)
    limit = options.frame_limit
    if bundle is None:
        return evaluate_frames(dataset, render, frame_limit=limit, learned=learned).figures
    with closing(AvatarRenderer(bundle)) as renderer:

        def render_live(index: int) -> tuple[ByteArray, ByteArray]:
            local = parameters_in_crop(dataset.parameters[index], dataset.info.crop)
            frame = renderer.render(local)
            return frame.image, frame.mask

        return evaluate_frames(dataset, render_live, frame_limit=limit, learned=learned).figures
