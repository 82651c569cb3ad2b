# SPDX-License-Identifier: Apache-2.0
"""What is trained, with what, and one step of it (paper, Sec. 3.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from styleavatar_core.networks import Discriminator, FeatureMaps, GeneratorConfig, Noise
from styleavatar_core.training.avatar_networks import AvatarNetworks, MovingAverage
from styleavatar_core.training.batches import Batch
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.losses import (
    LossTable,
    discriminator_loss,
    generator_adversarial_loss,
    gradient_penalty,
    reconstruction_losses,
)
from styleavatar_core.training.perceptual import PerceptualLoss
from styleavatar_core.training.schedule import Phase

StaticMaps = tuple[FeatureMaps, FeatureMaps]


@dataclass(frozen=True, slots=True)
class StepResult:
    """What came of a step.

    Attributes:
        losses: Terms of the networks' loss.
        is_finite: Whether losses and gradients were numbers.
        judge_lead: How surely the discriminator told real from made, in [-1, 1], if it took part.
    """

    losses: LossTable
    is_finite: bool
    judge_lead: float | None = None


class Trainer:
    """The networks, their average, the discriminator, and the optimizers of both sides.

    Args:
        generator_config: The preset.
        config: How to train.
        perceptual_weights: VGG19 weights, if there are any.

    Attributes:
        modules: All weights by name, as checkpoints hold them.
        optimizers: Likewise.
    """

    def __init__(
        self,
        generator_config: GeneratorConfig,
        config: TrainConfig,
        perceptual_weights: Path | None = None,
    ) -> None:
        torch.manual_seed(config.seed)
        layout = torch.channels_last
        self.networks = AvatarNetworks(generator_config).to(memory_format=layout)
        self.average = MovingAverage(self.networks, config.ema_decay)
        self.judge = Discriminator(generator_config.discriminator).to(memory_format=layout)
        self.modules = {
            "networks": self.networks,
            "average": self.average.networks,
            "judge": self.judge,
        }
        self.optimizers = {
            "networks": torch.optim.Adam(self.networks.parameters(), betas=(0.9, 0.99), fused=True),
            "judge": torch.optim.Adam(self.judge.parameters(), betas=(0.0, 0.99), fused=True),
        }
        self._config = config
        self._perceptual = PerceptualLoss(perceptual_weights) if perceptual_weights else None
        self._frozen_maps: StaticMaps | None = None

    def forget_maps(self) -> None:
        """Draws the frozen static maps anew, after the weights were set from outside."""
        self._frozen_maps = None

    def step(self, batch: Batch, noise: Noise | None, phase: Phase, number: int) -> StepResult:
        """Changes networks, discriminator and average by one step.

        Args:
            batch: The samples.
            noise: For presets that inject noise.
            phase: Rates, and who takes part.
            number: Which step it is, counted from 0.
        """
        config, prior = self._config, _prior(batch)
        output = self.networks(batch, self._draw_maps(is_frozen=phase.is_static_frozen), noise)
        losses = reconstruction_losses(output, batch, config.loss_weights, self._perceptual)
        if phase.adversarial_weight:
            self.judge.requires_grad_(False)
            scores = self.judge(output.image, prior)
            losses.add("adversarial", phase.adversarial_weight, generator_adversarial_loss(scores))
            self.judge.requires_grad_(True)
        optimizer = self.optimizers["networks"]
        optimizer.zero_grad(set_to_none=True)
        losses.total().backward()
        length = torch.nn.utils.clip_grad_norm_(self.networks.parameters(), config.gradient_norm)
        if not math.isfinite(float(length)):
            return StepResult(losses, is_finite=False)
        _apply(optimizer, phase.rate)
        judge_lead = None
        if phase.adversarial_weight:
            judge_lead = self._train_judge(batch, prior, output.image.detach(), phase, number)
        self.average.update(self.networks, number)
        return StepResult(losses, judge_lead is None or math.isfinite(judge_lead), judge_lead)

    def _draw_maps(self, *, is_frozen: bool) -> StaticMaps:
        """Returns the static maps; of frozen feature generators they are drawn only once."""
        if not is_frozen:
            return self.networks.static_maps()
        if self._frozen_maps is None:
            with torch.no_grad():
                self._frozen_maps = self.networks.static_maps()
        return self._frozen_maps

    def _train_judge(
        self, batch: Batch, prior: torch.Tensor, fake: torch.Tensor, phase: Phase, number: int
    ) -> float:
        """One step of the discriminator, with the lazy gradient penalty (R1); returns its lead."""
        config = self._config
        is_penalized = number % config.r1_interval == 0
        real = batch.image.detach().requires_grad_(is_penalized)
        real_scores, fake_scores = self.judge(real, prior), self.judge(fake, prior)
        loss = discriminator_loss(real_scores, fake_scores)
        if is_penalized:
            weight = config.r1_weight / 2 * config.r1_interval
            loss = loss + weight * gradient_penalty(real_scores, real)
        optimizer = self.optimizers["judge"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        _apply(optimizer, phase.judge_rate)
        return float((real_scores.sigmoid() - fake_scores.sigmoid()).mean().detach())


def _prior(batch: Batch) -> torch.Tensor:
    """Returns the texture rendering of the box at the picture's size (Sec. 3.3)."""
    size = batch.image.shape[-2:]
    if batch.box_rendering.shape[-2:] == size:
        return batch.box_rendering
    return F.interpolate(batch.box_rendering, size=size, mode="nearest")


def _apply(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
