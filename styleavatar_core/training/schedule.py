# SPDX-License-Identifier: Apache-2.0
"""What a step does at which point of the budget, and when quality has stopped rising.

Rate, frozen generators and discriminator follow the share of the budget that is used up. When the
PSNR of the watched frames, which are neither trained on nor reported, no longer rises, the budget
is cut so that the present is where its final part begins: the rate still falls to its end and the
discriminator still has its turn, in proportion to the time that was needed until then. All of it is
a function of :class:`Clock`, which checkpoints hold, so a resumed run decides as an unbroken one
does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from styleavatar_core.training.clock import Clock
from styleavatar_core.training.config import TrainConfig


@dataclass(frozen=True, slots=True)
class Phase:
    """What a step does.

    Attributes:
        rate: Learning rate of the networks.
        judge_rate: Learning rate of the discriminator.
        adversarial_weight: Weight of the discriminator's loss; 0 leaves it out.
        is_static_frozen: Whether the feature generators no longer learn.
    """

    rate: float
    judge_rate: float
    adversarial_weight: float
    is_static_frozen: bool


def phase_at(clock: Clock, config: TrainConfig) -> Phase:
    """Returns what the next step does."""
    share = budget_share(clock, config)
    rate = learning_rate(config, share) * clock.rate_factor
    weight = config.loss_weights.adversarial * clock.judge_factor
    return Phase(
        rate=rate,
        judge_rate=rate * clock.judge_factor,
        adversarial_weight=weight if share >= config.adversarial_start else 0.0,
        is_static_frozen=share >= config.static_share,
    )


def budget_share(clock: Clock, config: TrainConfig) -> float:
    """Returns how much of the budget is used up: steps if they are counted, else time."""
    if config.step_count is not None:
        return clock.step / (config.step_count * clock.budget_factor)
    return clock.elapsed_s / (60.0 * config.minutes * clock.budget_factor)


def learning_rate(config: TrainConfig, share: float) -> float:
    """Returns the rate at a share of the budget: a linear rise, then a cosine down."""
    if share < config.warm_up_share:
        return config.learning_rate * max(share / config.warm_up_share, 0.05)
    rest = min((share - config.warm_up_share) / (1.0 - config.warm_up_share), 1.0)
    cosine = 0.5 + 0.5 * math.cos(math.pi * rest)
    return config.learning_rate * (
        config.final_rate_share + (1.0 - config.final_rate_share) * cosine
    )


def checkpoint_pause_s(config: TrainConfig, saving_s: float) -> float:
    """Returns how long to train between checkpoints, of which the last took some time to write."""
    return max(config.checkpoint_interval_s, config.checkpoint_pause * saving_s)


def evaluation_is_due(clock: Clock, config: TrainConfig) -> bool:
    """Says whether the next look at the watched frames has come."""
    return _next_look(clock, config) > clock.next_evaluation_share


def after_evaluation(clock: Clock, psnr_db: float, config: TrainConfig) -> Clock:
    """Takes in a look at the watched frames; cuts the budget if quality has stopped rising."""
    share = budget_share(clock, config)
    clock = replace(clock, psnr_history=(*clock.psnr_history, psnr_db))
    if share < config.static_share and not clock.has_plateaued and _is_level(clock, config):
        clock = replace(clock, budget_factor=share / config.static_share)
    return replace(clock, next_evaluation_share=_next_look(clock, config))


def is_smaller_budget(config: TrainConfig, before: TrainConfig) -> bool:
    """Says whether a budget is smaller than the one before; time and steps do not compare."""
    if config.step_count is not None and before.step_count is not None:
        return config.step_count < before.step_count
    is_time = config.step_count is None and before.step_count is None
    return is_time and config.minutes < before.minutes


def under_budget(clock: Clock, before: TrainConfig | None, config: TrainConfig) -> Clock:
    """Returns a checkpoint's clock for the budget that it goes on with; of the same, unchanged.

    With another, larger budget the rate rises again and quality falls at first: what the looks
    under the one before gave, and the cut that followed, say nothing of it. A smaller one ends
    where that cut does, or sooner.

    Args:
        clock: How far it is.
        before: What the checkpoint was written under; None where it does not say.
        config: What it is to go on with.
    """
    if config.plateau_gain_db is None:
        clock = replace(clock, budget_factor=1.0)
    elif before is not None and is_smaller_budget(config, before):
        end = clock.budget_factor * (before.step_count or before.minutes)
        factor = min(end / (config.step_count or config.minutes), 1.0)
        return replace(clock, budget_factor=factor)
    if _next_look(clock, config) >= clock.next_evaluation_share:
        return clock
    clock = replace(clock, budget_factor=1.0, psnr_history=())
    return replace(clock, next_evaluation_share=_next_look(clock, config))


def _next_look(clock: Clock, config: TrainConfig) -> float:
    """Returns the share of the budget at which the look after the present one is due."""
    # A share of whole steps may come out a rounding error short: 3/40 over 0.025 is less than 3.
    done = math.floor(budget_share(clock, config) / config.evaluation_share + 1e-9)
    return (done + 1) * config.evaluation_share


def _is_level(clock: Clock, config: TrainConfig) -> bool:
    """Says whether the last window of looks is hardly better, on average, than the one before."""
    if config.plateau_gain_db is None:
        return False
    count = max(round(config.plateau_share / config.evaluation_share), 1)
    history = clock.psnr_history
    if len(history) < 2 * count:
        return False
    gain_db = sum(history[-count:]) / count - sum(history[-2 * count : -count]) / count
    return gain_db < config.plateau_gain_db


def stopped_by(clock: Clock, config: TrainConfig) -> str:
    """Says what ended a training, for its manifest."""
    if clock.has_plateaued:
        return "plateau"
    return "time" if config.step_count is None else "steps"
