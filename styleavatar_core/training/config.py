# SPDX-License-Identifier: Apache-2.0
"""Every number of the training, as frozen dataclasses; stored in each checkpoint and bundle."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Weights of the loss terms (paper, Eq. 4)."""

    l1: float = 1.0
    perceptual: float = 0.1  # VGG19, when its weights are given
    structure: float = 3.0  # stands in for the perceptual loss when they are not
    mask: float = 3.0  # with less shoulders are taken for the room for hundreds of steps
    adversarial: float = 0.05


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a training runs. Phases and rates follow the share of the budget that is used up.

    Attributes:
        minutes: Budget of wall-clock time.
        step_count: Budget of steps instead; makes a run repeatable to the bit.
        batch_size: Samples per step.
        precision: Of the networks' forward passes: ``fp32``, ``bf16`` (autocast; weights, losses,
            gradient penalty and averages stay fp32), or ``auto``: bf16 on GPUs that have it.
        learning_rate: Peak of Adam's rate. High, as equalised weights have unit spread and a
            training on a CPU has few steps.
        warm_up_share: Share of the budget in which the rate rises.
        final_rate_share: Rate at the end over the peak, reached by a cosine.
        gradient_norm: Gradients of the networks longer than this are shortened.
        judge_gradient_norm: The same of the discriminator; most are shorter, penalties may not be.
        ema_decay: Of the averaged weights, at the end of its ramp.
        centered_share: Share of sample boxes that stay in the middle.
        apart_share: Share of samples whose background stays in the middle while the person's window
            moves, so that the two come apart (Sec. 3.2).
        tilt_share: Share of these persons who are tilted farther than any frame shows them.
        tilt_deg: Degrees beyond the frames' largest tilt, to either side, at most.
        fixed_style_share: Share of samples with the z_tmp that inference will use, so that this
            code has seen every pose (Sec. 3.4 only says that one is selected).
        shared_identity_share: Share of steps of a pre-training with the z_id that stands for nobody
            in particular; a new avatar starts from what it has learned.
        static_share: Share of the budget after which the feature generators are frozen.
        adversarial_start: Share of the budget after which the discriminator joins; 1 leaves it out.
        r1_weight: Of the gradient penalty.
        r1_interval: Steps between penalties; of several clips, each one's own steps.
        checkpoint_interval_s: Seconds of training between checkpoints, at least.
        checkpoint_pause: At least so many times as long as the last one took to write.
        preview_interval_s: Seconds between pictures.
        evaluation_share: Share of the budget between quick looks at the watched frames.
        plateau_share: Share of the budget over which these looks are averaged.
        plateau_gain_db: PSNR that must be gained from one such average to the next; with less, the
            final part of the training begins at once. None leaves the budget as it is.
        seed: Of weights, order of frames, sample boxes and noise.
        loss_weights: Weights of the terms.
    """

    minutes: float = 20.0
    step_count: int | None = None
    batch_size: int = 2
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    learning_rate: float = 2e-2
    warm_up_share: float = 0.02
    final_rate_share: float = 0.02
    gradient_norm: float = 1.0
    judge_gradient_norm: float = 10.0
    ema_decay: float = 0.995
    centered_share: float = 0.5
    apart_share: float = 0.3
    tilt_share: float = 1 / 3
    tilt_deg: float = 15.0
    fixed_style_share: float = 0.5
    shared_identity_share: float = 0.2
    static_share: float = 0.6
    adversarial_start: float = 0.75
    r1_weight: float = 1.0
    r1_interval: int = 16
    checkpoint_interval_s: float = 45.0
    checkpoint_pause: float = 20.0
    preview_interval_s: float = 20.0
    evaluation_share: float = 0.025
    plateau_share: float = 0.15
    plateau_gain_db: float | None = 0.05
    seed: int = 0
    loss_weights: LossWeights = field(default_factory=LossWeights)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Restores a config from ``to_dict``'s values, also after a trip through JSON.

        What an older version did not know is as it is by default; what a later one knows is left
        out.
        """
        return _reader().validate_python(values)


@cache
def _reader() -> TypeAdapter[TrainConfig]:
    return TypeAdapter(TrainConfig)
