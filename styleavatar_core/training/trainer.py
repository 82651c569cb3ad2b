# SPDX-License-Identifier: Apache-2.0
"""What is trained, with what, and one step of it (paper, Sec. 3.3)."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from styleavatar_core.engine.cuda.graph import compute_exactly
from styleavatar_core.networks import (
    Discriminator,
    FeatureMaps,
    GeneratorConfig,
    Noise,
    PortraitOutput,
)
from styleavatar_core.ops.ranks import mean_over_ranks
from styleavatar_core.training.avatar_networks import AvatarNetworks, MovingAverage
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.cpu.layers import with_fewer_passes
from styleavatar_core.training.flat_weights import flat_weights
from styleavatar_core.training.losses import (
    discriminator_losses,
    generator_adversarial_loss,
    reconstruction_losses,
)
from styleavatar_core.training.parallel import in_parallel, own_device
from styleavatar_core.training.perceptual import PerceptualLoss
from styleavatar_core.training.samples.batches import Batch
from styleavatar_core.training.schedule import Phase

StaticMaps = tuple[FeatureMaps, FeatureMaps]


@dataclass(frozen=True, slots=True)
class StepResult:
    """What came of a step.

    Attributes:
        losses: Weighted terms of the networks' loss, of the whole batch.
        is_finite: Whether losses and gradients of both sides were numbers.
        judge: Of the discriminator, if it took part: the weighted terms of its own loss, ``judge``
            and ``judge_penalty`` (the latest), and ``judge_lead``, how surely it told real from
            made, in [-1, 1].
    """

    losses: dict[str, float]
    is_finite: bool
    judge: dict[str, float] = field(default_factory=dict)


class Trainer:
    """The networks, their average, the discriminator, and the optimizers of both sides.

    On several ranks each has the same weights, and takes its share of the batch.

    Args:
        generator_config: The preset.
        config: How to train.
        perceptual_weights: VGG19 weights, if there are any.
        clip_count: How many clips are trained on.

    Attributes:
        modules: All weights by name, as checkpoints hold them.
        optimizers: Likewise.
    """

    def __init__(
        self,
        generator_config: GeneratorConfig,
        config: TrainConfig,
        perceptual_weights: Path | None = None,
        clip_count: int = 1,
    ) -> None:
        torch.manual_seed(config.seed)
        self._device = own_device()
        compute_exactly()
        # On CPUs channels-last convolutions of this size took longer, backward above all.
        is_cpu = self._device.type == "cpu"
        layout = torch.contiguous_format if is_cpu else torch.channels_last
        networks = AvatarNetworks(generator_config, clip_count)
        if is_cpu and not _uses_bf16(config, self._device):
            networks = with_fewer_passes(networks)
        judge = Discriminator(generator_config.discriminator)
        for network in (networks, judge):  # in place; torch's stub knows of no layout
            network.to(self._device, memory_format=layout)  # type: ignore[call-overload]
        self.networks, self.judge = networks, judge
        self.average = MovingAverage(self.networks, config.ema_decay)
        self._parallel_networks = in_parallel(self.networks, has_unused=True)
        self._autocast = torch.autocast(
            self._device.type, torch.bfloat16, enabled=_uses_bf16(config, self._device)
        )
        self._parallel_judge = in_parallel(self.judge, has_unused=False)
        self.modules: dict[str, nn.Module] = {
            "networks": self.networks,
            "average": self.average.networks,
            "judge": self.judge,
        }
        static, generator = self.networks.flat_weights()
        self._weights = static + generator
        self._judge_weights = flat_weights(self.judge)
        groups = [{"params": static}, {"params": generator}]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "networks": torch.optim.Adam(groups, betas=(0.9, 0.99), fused=True),
            "judge": torch.optim.Adam(self._judge_weights, betas=(0.0, 0.99), fused=True),
        }
        self._config = config
        self._perceptual = None
        if perceptual_weights is not None:
            self._perceptual = PerceptualLoss(perceptual_weights).to(self._device)
        self._frozen_maps: dict[tuple[int, bool], StaticMaps] = {}
        self._penalty: dict[str, float] = {}  # the latest, as few steps have one

    def forget_maps(self) -> None:
        """Draws the frozen static maps anew, after the weights were set from outside."""
        self._frozen_maps.clear()
        self.networks.train()

    def step(self, batch: Batch, noise: Noise | None, phase: Phase, number: int) -> StepResult:
        """Changes networks, discriminator and average by one step.

        Args:
            batch: The samples of this rank.
            noise: For presets that inject noise.
            phase: Rates, and who takes part.
            number: Which step it is, counted from 0.
        """
        config, batch = self._config, batch.to(self._device)
        noise, prior = noise and noise.to(self._device), _prior(batch)
        maps = self._frozen_static_maps(batch) if phase.is_static_frozen else None
        with self._autocast:
            output = self._parallel_networks(batch, maps, noise)
        output = PortraitOutput(output.image.float(), output.mask.float())
        losses = reconstruction_losses(output, batch, config.loss_weights, self._perceptual)
        if phase.adversarial_weight:
            self.judge.requires_grad_(False)
            with self._autocast:
                scores = self.judge(output.image * batch.valid, prior).float()
            losses.add("adversarial", phase.adversarial_weight, generator_adversarial_loss(scores))
            self.judge.requires_grad_(True)
        optimizer = self.optimizers["networks"]
        optimizer.zero_grad(set_to_none=False)
        losses.total().backward()
        length = torch.nn.utils.clip_grad_norm_(self._weights, config.gradient_norm)
        values = losses.values()
        if not math.isfinite(float(length)):
            return StepResult(values, is_finite=False)
        _apply(optimizer, 0.0 if phase.is_static_frozen else phase.rate, phase.rate)
        judge: dict[str, float] = {}
        if phase.adversarial_weight:
            shown = output.image.detach() * batch.valid
            judge = self._train_judge(batch, prior, shown, phase, number)
        self.average.update(self.networks, self._weights, number)
        return StepResult(values, all(map(math.isfinite, judge.values())), judge)

    def _frozen_static_maps(self, batch: Batch) -> StaticMaps:
        """Returns the maps of frozen feature generators, which are drawn only once."""
        clip, is_shared = batch.clip, batch.has_shared_identity
        if (clip, is_shared) not in self._frozen_maps:
            # Normalised by what inference uses; drawing them, now or once resumed, changes nothing.
            self.networks.face.eval()
            self.networks.background.eval()
            with torch.no_grad():
                maps = self.networks.static_maps(clip, is_shared=is_shared)
            self._frozen_maps[clip, is_shared] = maps
        return self._frozen_maps[clip, is_shared]

    def _train_judge(
        self, batch: Batch, prior: torch.Tensor, fake: torch.Tensor, phase: Phase, number: int
    ) -> dict[str, float]:
        """One step of the discriminator, with the lazy gradient penalty (R1): ``StepResult.judge``.

        Where its gradients are no numbers it stays as it is.
        """
        config = self._config
        # In every so many turns of each clip; those of different clips lie apart.
        clip_count = self.networks.clip_count
        turn, apart = number // clip_count, batch.clip * config.r1_interval // clip_count
        is_penalized = (turn + apart) % config.r1_interval == 0
        real = (batch.image * batch.valid).requires_grad_(is_penalized)
        judge = self._parallel_judge
        # The penalty squares gradients of gradients: those are fp32 always.
        with nullcontext() if is_penalized else self._autocast:
            real_scores, fake_scores = judge(real, prior).float(), judge(fake, prior).float()
        weight = config.r1_weight / 2 * config.r1_interval
        penalized = (weight, real) if is_penalized else None
        losses = discriminator_losses(real_scores, fake_scores, penalized)
        optimizer = self.optimizers["judge"]
        optimizer.zero_grad(set_to_none=False)
        losses.total().backward()
        length = torch.nn.utils.clip_grad_norm_(self._judge_weights, config.judge_gradient_norm)
        lead = (real_scores.sigmoid() - fake_scores.sigmoid()).mean().detach()
        values = losses.values() | {"judge_lead": float(mean_over_ranks(lead))}
        if not math.isfinite(float(length)):
            return values | {"judge": math.nan}
        _apply(optimizer, phase.judge_rate)
        self._penalty = {k: v for k, v in values.items() if k == "judge_penalty"} or self._penalty
        return self._penalty | values


def _uses_bf16(config: TrainConfig, device: torch.device) -> bool:
    if config.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return config.precision == "bf16"


def _prior(batch: Batch) -> torch.Tensor:
    """Returns the texture rendering of the box at the picture's size (Sec. 3.3)."""
    size = batch.image.shape[-2:]
    if batch.box_rendering.shape[-2:] == size:
        return batch.box_rendering
    return F.interpolate(batch.box_rendering, size=size, mode="nearest")


def _apply(optimizer: torch.optim.Optimizer, *rates: float) -> None:
    """Takes a step with a rate for each group of weights; of those with none nothing changes."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    optimizer.step()
