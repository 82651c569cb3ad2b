# SPDX-License-Identifier: Apache-2.0
"""The training of an avatar (paper, Sec. 3.2-3.4): one function from top to bottom."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.errors import TrainingCanceled, TrainingError
from styleavatar_core.networks import Discriminator, FeatureMaps, GeneratorConfig, sample_noise
from styleavatar_core.training.avatar_networks import AvatarNetworks, MovingAverage
from styleavatar_core.training.batches import Batch, BatchSampler
from styleavatar_core.training.checkpoint import (
    Clock,
    load_checkpoint,
    read_module,
    save_checkpoint,
)
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.losses import (
    discriminator_loss,
    generator_adversarial_loss,
    gradient_penalty,
    reconstruction_losses,
)
from styleavatar_core.training.memory import keep_freed_memory
from styleavatar_core.training.perceptual import PerceptualLoss
from styleavatar_core.training.reporter import TrainingReporter
from styleavatar_core.types import Progress

logger = logging.getLogger(__name__)

StaticMaps = tuple[FeatureMaps, FeatureMaps]

CHECKPOINT_NAME = "checkpoint.safetensors"
_MAX_DIVERGENCES = 3


def train(  # noqa: PLR0915 - the one long function, read from top to bottom
    dataset: AvatarDataset,
    generator_config: GeneratorConfig,
    config: TrainConfig,
    folder: Path,
    *,
    perceptual_weights: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Path:
    """Trains until the budget is used up; goes on from the folder's checkpoint if there is one.

    Args:
        dataset: The prepared clip.
        generator_config: The preset.
        config: How to train.
        folder: Takes checkpoint, log and pictures.
        perceptual_weights: VGG19 weights, if there are any.
        on_progress: Told about once a second how far it is.
        should_stop: Asked after each step; a checkpoint is written before stopping.

    Returns:
        The checkpoint.

    Raises:
        TrainingCanceled: ``should_stop`` said so.
        TrainingError: The training diverged again and again.
    """
    keep_freed_memory()
    torch.manual_seed(config.seed)
    networks = AvatarNetworks(generator_config).to(memory_format=torch.channels_last)
    average = MovingAverage(networks, config.ema_decay)
    judge = Discriminator(generator_config.discriminator).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(networks.parameters(), betas=(0.9, 0.99), fused=True)
    judge_optimizer = torch.optim.Adam(judge.parameters(), betas=(0.0, 0.99), fused=True)
    perceptual = PerceptualLoss(perceptual_weights) if perceptual_weights else None
    sampler = BatchSampler(dataset, generator_config, config)
    reporter = TrainingReporter(dataset, average.networks, config, folder, on_progress)

    path = folder / CHECKPOINT_NAME
    modules = {"networks": networks, "average": average.networks, "judge": judge}
    optimizers = {"networks": optimizer, "judge": judge_optimizer}
    fingerprint = _fingerprint(dataset, generator_config, config)
    clock = Clock()
    if path.exists():
        clock = load_checkpoint(path, modules, optimizers, fingerprint)
        if budget_share(clock, config) < 1.0:
            clock = dataclasses.replace(clock, resume_count=clock.resume_count + 1)
            logger.info("training resumed", extra={"step": clock.step})
    else:
        save_checkpoint(path, clock, modules, optimizers, fingerprint)
    saved_s, divergence_count = clock.elapsed_s, 0
    maps: StaticMaps | None = None

    while (share := budget_share(clock, config)) < 1.0:
        started = time.monotonic()
        batch = sampler.at_step(clock.step)
        is_adversarial = share >= config.adversarial_start
        rate = learning_rate(config, share) * clock.rate_factor
        noise_source = torch.Generator().manual_seed(config.seed * 1_000_003 + clock.step)
        noise = sample_noise(generator_config, config.batch_size, generator=noise_source)

        maps = _draw_maps(networks, maps, is_frozen=share >= config.static_share)
        output = networks(batch, maps, noise)
        losses = reconstruction_losses(output, batch, config.loss_weights, perceptual)
        if is_adversarial:
            judge.requires_grad_(False)
            scores = judge(output.image, _prior(batch))
            weight = config.loss_weights.adversarial
            losses.add("adversarial", weight, generator_adversarial_loss(scores))
        total = losses.total()
        if not math.isfinite(float(total.detach())):
            divergence_count += 1
            if divergence_count > _MAX_DIVERGENCES:
                raise TrainingError(
                    f"the training diverged {divergence_count} times near step {clock.step}; "
                    "use a smaller learning rate"
                )
            factor = clock.rate_factor * 0.5
            clock = load_checkpoint(path, modules, optimizers, fingerprint)
            clock = dataclasses.replace(clock, rate_factor=factor)
            maps = None
            logger.warning("training diverged", extra={"back_to_step": clock.step})
            continue
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(networks.parameters(), config.gradient_norm)
        _step(optimizer, rate)
        if is_adversarial:
            judge.requires_grad_(True)
            _train_judge(judge, judge_optimizer, batch, output.image, rate, config, clock.step)
        average.update(networks, clock.step)

        elapsed_s = clock.elapsed_s + time.monotonic() - started
        clock = dataclasses.replace(clock, step=clock.step + 1, elapsed_s=elapsed_s)
        spent_s = reporter.after_step(clock, budget_share(clock, config), rate, losses)
        clock = dataclasses.replace(clock, elapsed_s=clock.elapsed_s + spent_s)
        stops = should_stop is not None and should_stop()
        if stops or clock.elapsed_s - saved_s >= config.checkpoint_interval_s:
            save_checkpoint(path, clock, modules, optimizers, fingerprint)
            saved_s = clock.elapsed_s
        if stops:
            raise TrainingCanceled
    save_checkpoint(path, clock, modules, optimizers, fingerprint)
    reporter.finish(clock)
    return path


def load_average(path: Path, config: GeneratorConfig) -> tuple[AvatarNetworks, Clock]:
    """Reads the averaged networks of a checkpoint, whatever video it belongs to."""
    networks = AvatarNetworks(config)
    clock = read_module(path, "average", networks)
    return networks.eval().requires_grad_(False), clock


def budget_share(clock: Clock, config: TrainConfig) -> float:
    """Returns how much of the budget is used up: steps if they are counted, else time."""
    if config.step_count is not None:
        return clock.step / config.step_count
    return clock.elapsed_s / (60.0 * config.minutes)


def learning_rate(config: TrainConfig, share: float) -> float:
    """Returns the rate at a share of the budget: a linear rise, then a cosine down."""
    if share < config.warm_up_share:
        return config.learning_rate * max(share / config.warm_up_share, 0.05)
    rest = min((share - config.warm_up_share) / (1.0 - config.warm_up_share), 1.0)
    cosine = 0.5 + 0.5 * math.cos(math.pi * rest)
    return config.learning_rate * (
        config.final_rate_share + (1.0 - config.final_rate_share) * cosine
    )


def _draw_maps(
    networks: AvatarNetworks, known: StaticMaps | None, *, is_frozen: bool
) -> StaticMaps:
    """Returns the static maps; once the feature generators are frozen they are drawn only once."""
    if is_frozen and known is not None and not known[0].feature.requires_grad:
        return known
    with torch.set_grad_enabled(not is_frozen):
        return networks.static_maps()


def _train_judge(
    judge: Discriminator,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    fake: torch.Tensor,
    rate: float,
    config: TrainConfig,
    step: int,
) -> None:
    """One step of the discriminator, with the lazy gradient penalty (R1)."""
    prior = _prior(batch)
    penalized = step % config.r1_interval == 0
    real = batch.image.detach().requires_grad_(penalized)
    real_scores = judge(real, prior)
    loss = discriminator_loss(real_scores, judge(fake.detach(), prior))
    if penalized:
        weight = config.r1_weight / 2 * config.r1_interval
        loss = loss + weight * gradient_penalty(real_scores, real)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    _step(optimizer, rate)


def _prior(batch: Batch) -> torch.Tensor:
    """Returns the texture rendering of the box at the picture's size (Sec. 3.3)."""
    size = batch.image.shape[-2:]
    if batch.box_rendering.shape[-2:] == size:
        return batch.box_rendering
    return F.interpolate(batch.box_rendering, size=size, mode="nearest")


def _step(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()


def _fingerprint(
    dataset: AvatarDataset, generator_config: GeneratorConfig, config: TrainConfig
) -> str:
    """Returns what must agree for a training to go on: video, preset and seed."""
    parts = (
        dataset.info.source_sha256,
        dataset.info.frame_count,
        generator_config.to_dict(),
        config.batch_size,
        config.seed,
    )
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
