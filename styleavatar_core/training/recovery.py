# SPDX-License-Identifier: Apache-2.0
"""Notices a training that goes wrong, and with which gentler setting it goes on.

Three things go wrong: numbers that are none, a reconstruction that gets worse and worse, and a
discriminator so sure that the networks learn nothing from it. The training then goes back to its
last good checkpoint, see ``good_checkpoint``. A rate that was too high is halved; the fourth time
without getting past where it diverged before, the training is given up, and goes on from there when
a person runs it again. A discriminator that wins learns half as fast and counts half; the third
time it is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum

from styleavatar_core.errors import TrainingError
from styleavatar_core.training.clock import Clock, Health, Recovery
from styleavatar_core.training.trainer import StepResult

logger = logging.getLogger(__name__)

MEAN_STEPS = 50  # of running means
_SETTLED_STEPS = 100  # of a training, or since it went back; before, no discriminator is judged
_RISE_LIMIT = 2.0  # running mean of the loss over its lowest; healthy trainings stay below 1.2
_EARLY_RISE_LIMIT = 5.0  # before they are settled; by the chance of few steps they reach 1.6
_LEAD_LIMIT = 0.9
_MAX_DIVERGENCES = 3
_MAX_GENTLER_JUDGES = 2


class Trouble(StrEnum):
    """What goes wrong."""

    NOT_FINITE = "not finite"
    LOSS_ROSE = "loss rose"
    JUDGE_WON = "discriminator won"


def observe(health: Health, result: StepResult) -> Health:
    """Takes in a step."""
    if not result.is_finite:
        return health
    loss = sum(value for name, value in result.losses.items() if name != "adversarial")
    count = health.step_count + 1
    mean = health.loss + (loss - health.loss) / min(count, MEAN_STEPS)
    lowest = health.lowest_loss
    # Those of fewer steps may be low by chance.
    lowest = mean if lowest is None or count == MEAN_STEPS else min(lowest, mean)
    health = replace(health, step_count=count, loss=mean, lowest_loss=lowest)
    if "judge_lead" not in result.judge:
        return health
    count = health.judge_step_count + 1
    change = (result.judge["judge_lead"] - health.judge_lead) / min(count, MEAN_STEPS)
    lead = health.judge_lead + change
    return replace(health, judge_step_count=count, judge_lead=lead)


def find_trouble(health: Health, result: StepResult) -> Trouble | None:
    """Says what goes wrong, if anything does."""
    if not result.is_finite:
        return Trouble.NOT_FINITE
    lowest = health.lowest_loss
    limit = _RISE_LIMIT if health.step_count >= _SETTLED_STEPS else _EARLY_RISE_LIMIT
    if lowest is not None and health.loss > limit * lowest:
        return Trouble.LOSS_ROSE
    if health.judge_step_count >= _SETTLED_STEPS and health.judge_lead > _LEAD_LIMIT:
        return Trouble.JUDGE_WON
    return None


def recover(saved: Clock, now: Clock, trouble: Trouble) -> Clock:
    """Returns how the training goes on from a checkpoint.

    Args:
        saved: Of the checkpoint. Its step is gone back to; time that is spent stays spent.
        now: When the trouble was found.
        trouble: What it is.
    """
    recoveries = (*now.recoveries, Recovery(str(trouble), now.step, saved.step))
    rate_factor, judge_factor = now.rate_factor, now.judge_factor
    given_up_count = now.given_up_count
    if trouble is Trouble.JUDGE_WON:
        win_count = sum(recovery.cause == trouble for recovery in recoveries)
        is_last = win_count > _MAX_GENTLER_JUDGES
        judge_factor = 0.0 if is_last else judge_factor / 2
    else:
        rate_factor /= 2
        if _divergence_count(recoveries[given_up_count:]) > _MAX_DIVERGENCES:
            given_up_count = len(recoveries)
    logger.warning("training goes back to a good checkpoint: %s", recoveries[-1])
    return replace(
        saved,
        elapsed_s=now.elapsed_s,
        resume_count=now.resume_count,
        rate_factor=rate_factor,
        judge_factor=judge_factor,
        health=Health(),
        recoveries=recoveries,
        given_up_count=given_up_count,
    )


def _divergence_count(recoveries: Sequence[Recovery]) -> int:
    """Counts the divergences since a good checkpoint lay past all earlier ones."""
    count, farthest = 0, 0
    for recovery in recoveries:
        if recovery.cause == Trouble.JUDGE_WON:
            continue
        count = 1 if recovery.back_to_step > farthest else count + 1
        farthest = max(farthest, recovery.step)
    return count


def require_another_try(clock: Clock) -> None:
    """Refuses to go on with a training that is given up.

    Raises:
        TrainingError: Gentler settings did not help.
    """
    if not clock.is_given_up:
        return
    last = clock.recoveries[-1]
    raise TrainingError(
        f"the training diverged {_MAX_DIVERGENCES + 1} times without getting on, the last time at "
        f"step {last.step} ({last.cause}): run the same again to go on from step "
        f"{last.back_to_step} with a learning rate that is {clock.rate_factor:g} of the usual one; "
        "if that does not help, use a larger --batch-size, on a GPU --precision fp32, or another "
        "clip"
    )
