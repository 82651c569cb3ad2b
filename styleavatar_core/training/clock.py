# SPDX-License-Identifier: Apache-2.0
"""How far a training is, and all that decides how it goes on; every checkpoint holds it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import cache

from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class Health:
    """Running means that tell whether a training goes well, see ``recovery``.

    Attributes:
        step_count: Steps since the start or the last recovery.
        loss: Running mean of the reconstruction loss.
        lowest_loss: Lowest value of that mean; once there are any, of those over all its steps.
        judge_step_count: Steps with the discriminator.
        judge_lead: Running mean of its lead over the networks, in [-1, 1]: 0 when it guesses, 1
            when it is sure and right.
    """

    step_count: int = 0
    loss: float = 0.0
    lowest_loss: float | None = None
    judge_step_count: int = 0
    judge_lead: float = 0.0


@dataclass(frozen=True, slots=True)
class Recovery:
    """A return to the last checkpoint: why, when, and how far back."""

    cause: str
    step: int
    back_to_step: int

    def __str__(self) -> str:
        return f"{self.cause} at step {self.step}, back to step {self.back_to_step}"


@dataclass(frozen=True, slots=True)
class Clock:
    """How far a training is.

    Attributes:
        step: Steps done.
        elapsed_s: Seconds of training, over all resumptions.
        resume_count: How often it was taken up again.
        rate_factor: Factor on the learning rate, halved after each divergence.
        judge_factor: Factor on rate and weight of the discriminator, smaller after each time that
            it won.
        budget_factor: Factor on the budget; less than 1 once quality has stopped rising.
        next_evaluation_share: Share of the budget at which watched frames are looked at next.
        psnr_history: What these looks gave under this budget, dB.
        started_from: Name of the file that it started from, if it was another avatar's.
        health: Whether it goes well.
        recoveries: What went wrong until now.
        given_up_count: How many of these there were when it was last given up, after the latest.
    """

    step: int = 0
    elapsed_s: float = 0.0
    resume_count: int = 0
    rate_factor: float = 1.0
    judge_factor: float = 1.0
    budget_factor: float = 1.0
    next_evaluation_share: float = 0.0
    psnr_history: tuple[float, ...] = ()
    started_from: str = ""
    health: Health = Health()
    recoveries: tuple[Recovery, ...] = ()
    given_up_count: int = 0

    @property
    def is_given_up(self) -> bool:
        """Whether what went wrong last was once too often; the next try may err as often again."""
        return 0 < self.given_up_count == len(self.recoveries)

    @property
    def has_plateaued(self) -> bool:
        """Whether the budget was cut because quality has stopped rising."""
        return self.budget_factor < 1.0

    def to_json(self) -> str:
        """Returns it as text; every number comes back to the last bit."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Clock:
        """Restores what :meth:`to_json` wrote; fields of later versions start at their defaults."""
        return _reader().validate_json(text)


@cache
def _reader() -> TypeAdapter[Clock]:
    return TypeAdapter(Clock)
