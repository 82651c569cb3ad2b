# SPDX-License-Identifier: Apache-2.0
"""Loss terms (paper, Eq. 4). One table is both summed and logged, so that they cannot differ."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from styleavatar_core.networks import PortraitOutput
from styleavatar_core.ops.ranks import mean_over_ranks
from styleavatar_core.training.config import LossWeights
from styleavatar_core.training.perceptual import PerceptualLoss
from styleavatar_core.training.samples.batches import Batch

_PYRAMID_LEVELS = 3


class LossTable:
    """Named terms with their weights.

    Attributes:
        terms: (weight, value) by name; values are scalar tensors.
    """

    def __init__(self) -> None:
        self.terms: dict[str, tuple[float, torch.Tensor]] = {}

    def add(self, name: str, weight: float, value: torch.Tensor) -> None:
        """Adds a term."""
        self.terms[name] = (weight, value)

    def total(self) -> torch.Tensor:
        """Returns the weighted sum."""
        return torch.stack([weight * value for weight, value in self.terms.values()]).sum()

    def values(self) -> dict[str, float]:
        """Returns the weighted terms as they are summed, of the whole batch, for logs."""
        weighted = torch.stack([weight * value.detach() for weight, value in self.terms.values()])
        return dict(zip(self.terms, mean_over_ranks(weighted).tolist(), strict=True))


def reconstruction_losses(
    output: PortraitOutput,
    batch: Batch,
    weights: LossWeights,
    perceptual: PerceptualLoss | None = None,
) -> LossTable:
    """Compares pictures and masks with the truth.

    Args:
        output: What the generator gave.
        batch: The truth; where ``valid`` is 0 nothing is compared.
        weights: Weights of the terms.
        perceptual: VGG19 loss; without it the structural loss takes its place.
    """
    table = LossTable()
    table.add("l1", weights.l1, _mean((output.image - batch.image).abs(), batch.valid))
    if perceptual is not None:
        valid = batch.valid
        value = perceptual(output.image * valid, batch.image * valid)
        table.add("perceptual", weights.perceptual, value)
    elif weights.structure:
        value = structure_loss(output.image, batch.image, batch.valid)
        table.add("structure", weights.structure, value)
    mask_error = (output.mask - batch.mask).abs()
    table.add("mask", weights.mask, _mean(mask_error, batch.mask_valid))
    return table


def structure_loss(
    image: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor | None = None
) -> torch.Tensor:
    """Multi-scale L1 of horizontal and vertical differences.

    It needs no learned weights: an error in an edge counts at every scale where the edge is seen,
    while a slow drift of brightness, which the plain L1 already sees, counts little. At each of
    three scales (pictures halved by averaging) the differences of neighbouring pixels are compared.

    Args:
        image: (B, 3, H, W) float32.
        truth: (B, 3, H, W) float32.
        valid: (B, 1, H, W) float32, 0 where nothing is compared.

    Returns:
        Scalar, mean absolute difference summed over the scales.
    """
    error = image - truth  # differences are linear, so those of the error are enough
    valid = torch.ones_like(error[:, :1]) if valid is None else valid
    total = error.new_zeros(())
    for level in range(_PYRAMID_LEVELS):
        if level:
            error, valid = F.avg_pool2d(error, 2), F.avg_pool2d(valid, 2).floor()
        across = (error[..., 1:] - error[..., :-1]).abs()
        down = (error[..., 1:, :] - error[..., :-1, :]).abs()
        total = total + _mean(across, valid[..., 1:] * valid[..., :-1])
        total = total + _mean(down, valid[..., 1:, :] * valid[..., :-1, :])
    return total


def generator_adversarial_loss(scores: torch.Tensor) -> torch.Tensor:
    """Non-saturating loss of the generator for (B, 1) scores of its pictures."""
    return F.softplus(-scores).mean()


def discriminator_losses(
    real: torch.Tensor, fake: torch.Tensor, penalized: tuple[float, torch.Tensor] | None = None
) -> LossTable:
    """Returns the logistic loss of the discriminator and, in some steps, its penalty.

    Args:
        real: (B, 1) scores of real pictures.
        fake: (B, 1) scores of made ones.
        penalized: Weight of the gradient penalty, and the real pictures.
    """
    table = LossTable()
    table.add("judge", 1.0, discriminator_loss(real, fake))
    if penalized is not None:
        weight, image = penalized
        table.add("judge_penalty", weight, gradient_penalty(real, image))
    return table


def discriminator_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Logistic loss of the discriminator for (B, 1) scores."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def gradient_penalty(scores: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """R1: mean squared gradient of the scores with respect to real pictures."""
    (gradient,) = torch.autograd.grad(scores.sum(), image, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def _mean(error: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Averages (B, C, H, W) where (B, 1, H, W) is 1.

    Divided by the pixels of an average rank, so that the mean over ranks is that of all pixels.
    """
    count = mean_over_ranks(valid.sum()) * error.shape[1]
    return (error * valid).sum() / count.clamp(min=1.0)
