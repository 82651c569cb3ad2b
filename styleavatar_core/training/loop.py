# SPDX-License-Identifier: Apache-2.0
"""The training of an avatar (paper, Sec. 3.2-3.4): one function from top to bottom."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import torch

from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.engine.memory import keep_freed_memory
from styleavatar_core.errors import TrainingCanceled
from styleavatar_core.networks import GeneratorConfig, sample_noise
from styleavatar_core.training.appearance import backplate, unwrapped_texture
from styleavatar_core.training.avatar_networks import AvatarNetworks
from styleavatar_core.training.batches import BatchSampler, image_tensor
from styleavatar_core.training.checkpoint import load_checkpoint, read_module, save_checkpoint
from styleavatar_core.training.clock import Clock
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.recovery import find_trouble, observe, recover
from styleavatar_core.training.rehearsal import is_out_of_memory, too_large_batch
from styleavatar_core.training.reporter import TrainingReporter
from styleavatar_core.training.schedule import (
    after_evaluation,
    budget_share,
    evaluation_is_due,
    phase_at,
)
from styleavatar_core.training.start import start_from_avatar
from styleavatar_core.training.trainer import Trainer
from styleavatar_core.types import Progress

logger = logging.getLogger(__name__)

CHECKPOINT_NAME = "checkpoint.safetensors"


def train(
    dataset: AvatarDataset,
    generator_config: GeneratorConfig,
    config: TrainConfig,
    folder: Path,
    *,
    perceptual_weights: Path | None = None,
    start: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Path:
    """Trains until the budget is used up; goes on from the folder's checkpoint if there is one.

    The budget is cut when held-out quality has stopped rising, see ``schedule``.

    Args:
        dataset: The prepared clip.
        generator_config: The preset.
        config: How to train.
        folder: Takes checkpoint, log and pictures.
        perceptual_weights: VGG19 weights, if there are any.
        start: Checkpoint or bundle of another avatar to start from.
        on_progress: Told about once a second how far it is.
        should_stop: Asked after each step; a checkpoint is written before stopping.

    Returns:
        The checkpoint.

    Raises:
        TrainingCanceled: ``should_stop`` said so.
        TrainingError: The training diverged again and again, or memory does not suffice.
    """
    keep_freed_memory()
    try:
        return _train(
            dataset,
            generator_config,
            config,
            folder,
            perceptual_weights,
            start,
            on_progress,
            should_stop,
        )
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    # Outside the handler: what the failed step held is free now.
    raise too_large_batch(dataset, generator_config, config, perceptual_weights)


def _train(
    dataset: AvatarDataset,
    generator_config: GeneratorConfig,
    config: TrainConfig,
    folder: Path,
    perceptual_weights: Path | None,
    start: Path | None,
    on_progress: Callable[[Progress], None] | None,
    should_stop: Callable[[], bool] | None,
) -> Path:
    """The training itself, read from top to bottom; see :func:`train`."""
    trainer = Trainer(generator_config, config, perceptual_weights)
    path = folder / CHECKPOINT_NAME
    if not path.exists():
        if start is not None:
            start_from_avatar(trainer, start)
        texture, plate = _appearance(dataset, generator_config)
        for networks in (trainer.networks, trainer.average.networks):
            networks.start_from(texture, plate)
    sampler = BatchSampler(dataset, generator_config, config)
    reporter = TrainingReporter(dataset, trainer.average.networks, config, folder, on_progress)
    fingerprint = _fingerprint(dataset, generator_config, config)
    state = (trainer.modules, trainer.optimizers, fingerprint)
    clock = Clock(started_from=start.name if start else "")
    if path.exists():
        clock = load_checkpoint(path, *state)
        if budget_share(clock, config) < 1.0:
            clock = replace(clock, resume_count=clock.resume_count + 1)
            logger.info("training resumed", extra={"step": clock.step})
    else:
        save_checkpoint(path, clock, *state)
    saved_s = clock.elapsed_s

    while budget_share(clock, config) < 1.0:
        started = time.monotonic()
        phase = phase_at(clock, config)
        batch = sampler.at_step(clock.step)
        noise_source = torch.Generator().manual_seed(config.seed * 1_000_003 + clock.step)
        noise = sample_noise(generator_config, config.batch_size, generator=noise_source)
        result = trainer.step(batch, noise, phase, clock.step)
        clock = replace(clock, health=observe(clock.health, result))
        if trouble := find_trouble(clock.health, result):
            clock = recover(load_checkpoint(path, *state), clock, trouble)
            trainer.forget_maps()
            save_checkpoint(path, clock, *state)
            continue
        clock = replace(clock, step=clock.step + 1)
        if evaluation_is_due(clock, config):
            clock = after_evaluation(clock, reporter.evaluate(), config)
        reporter.after_step(clock, budget_share(clock, config), phase.rate, result.losses)
        clock = replace(clock, elapsed_s=clock.elapsed_s + time.monotonic() - started)
        stops = should_stop is not None and should_stop()
        if stops or clock.elapsed_s - saved_s >= config.checkpoint_interval_s:
            save_checkpoint(path, clock, *state)
            saved_s = clock.elapsed_s
        if stops:
            raise TrainingCanceled
    save_checkpoint(path, clock, *state)
    reporter.finish(clock)
    return path


def load_average(path: Path, config: GeneratorConfig) -> tuple[AvatarNetworks, Clock]:
    """Reads the averaged networks of a checkpoint, whatever video it belongs to."""
    networks = AvatarNetworks(config)
    clock = read_module(path, "average", networks)
    return networks.eval().requires_grad_(False), clock


def _appearance(
    dataset: AvatarDataset, config: GeneratorConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the unwrapped texture and the backplate, as large as the RGB of their maps."""
    texture = unwrapped_texture(dataset, 2 * config.face.size)
    side = 2 * config.background.size
    plate = cv2.resize(backplate(dataset), (side, side), interpolation=cv2.INTER_AREA)
    return image_tensor(texture[None]), image_tensor(plate[None])


def _fingerprint(
    dataset: AvatarDataset, generator_config: GeneratorConfig, config: TrainConfig
) -> str:
    """Returns what must agree for a training to go on: video, preset and seed."""
    parts = (
        dataset.info.source_sha256,
        dataset.info.frame_count,
        generator_config.to_dict(),
        config.seed,
    )
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
