# SPDX-License-Identifier: Apache-2.0
"""A training that goes on with other settings than it was begun with: told, or refused."""

from __future__ import annotations

import logging
from pathlib import Path

from styleavatar_core.errors import ConflictError
from styleavatar_core.ops.ranks import own_rank
from styleavatar_core.training.clock import Clock
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.record.checkpoint import read_settings
from styleavatar_core.training.schedule import budget_share, is_smaller_budget

logger = logging.getLogger(__name__)


def check_settings(path: Path, clock: Clock, config: TrainConfig, start: Path | None) -> None:
    """Compares what a training goes on with to what its checkpoint was written under.

    Args:
        path: The checkpoint; one of an older version does not say, and is not compared.
        clock: How far it is, under the new budget.
        config: What it is to go on with.
        start: What a person wants it to start from.

    Raises:
        ConflictError: The budget is smaller than before, and used up, but the training was not
            finished: it would make an avatar of half a training.
    """
    before = read_settings(path)
    if before is None:
        return
    is_unfinished = budget_share(clock, before) < 1.0
    if is_unfinished and budget_share(clock, config) >= 1.0 and is_smaller_budget(config, before):
        done = f"{clock.step} steps, {clock.elapsed_s / 60:.2f} minutes"
        raise ConflictError(
            f"the training in {path.parent} has taken {done} of a budget of {_budget(before)}: the"
            f" {_budget(config)} that are given now are used up already. Give more (--minutes), or"
            " leave it out to go on as it was begun"
        )
    if own_rank() == 0:
        _tell(clock, before, config, start)


def _tell(clock: Clock, before: TrainConfig, config: TrainConfig, start: Path | None) -> None:
    now, then = config.to_dict(), before.to_dict()
    changes = [f"{name} {then[name]}, now {now[name]}" for name in now if now[name] != then[name]]
    if changes:
        logger.warning(
            "the training goes on with other settings than before: %s", "; ".join(changes)
        )
    if start is not None and start.name != clock.started_from:
        logger.warning(
            "the training goes on from its checkpoint: %s, given to start from, is not looked at",
            start,
        )


def _budget(config: TrainConfig) -> str:
    if config.step_count is not None:
        return f"{config.step_count} steps"
    return f"{config.minutes:g} minutes"
