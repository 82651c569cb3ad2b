# SPDX-License-Identifier: Apache-2.0
"""How far a training is, and all that decides how it goes on; every checkpoint holds it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """How far a training is.

    Attributes:
        step: Steps done.
        elapsed_s: Seconds of training, over all resumptions.
        resume_count: How often it was taken up again.
        rate_factor: Factor on the learning rate, halved after each divergence.
        budget_factor: Factor on the budget; less than 1 once quality has stopped rising.
        next_evaluation_share: Share of the budget at which held-out frames are looked at next.
        psnr_history: What these looks gave, dB.
    """

    step: int = 0
    elapsed_s: float = 0.0
    resume_count: int = 0
    rate_factor: float = 1.0
    budget_factor: float = 1.0
    next_evaluation_share: float = 0.0
    psnr_history: tuple[float, ...] = ()

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
        values = json.loads(text)
        return cls(**values | {"psnr_history": tuple(values.get("psnr_history", ()))})
