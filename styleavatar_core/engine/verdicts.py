# SPDX-License-Identifier: Apache-2.0
"""What the quality gate found, kept as text beside the cached engines."""

from __future__ import annotations

import json
from dataclasses import dataclass

from styleavatar_core.engine.cache import EngineCache
from styleavatar_core.engine.cache_key import CacheKey

# Of the worst picture against torch in fp32. fp32 itself may round a byte the other way.
LEAST_PSNR_DB = {"fp32": 60.0, "fp16": 45.0, "bf16": 45.0, "int8": 40.0}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate found.

    Attributes:
        precision: Of the engine.
        psnr_db: Of its worst picture against fp32.
    """

    precision: str
    psnr_db: float

    @property
    def is_accepted(self) -> bool:
        """Whether the engine may be used."""
        return self.psnr_db >= LEAST_PSNR_DB[self.precision]

    @property
    def reason(self) -> str:
        """The verdict in words."""
        relation = "at least" if self.is_accepted else "less than"
        return (
            f"{self.precision} gives {self.psnr_db:.1f} dB against fp32, "
            f"{relation} the {LEAST_PSNR_DB[self.precision]:.0f} dB asked for"
        )


class VerdictMemory:
    """Verdicts by engine; a person's go with their engines.

    Args:
        cache: Where those are.
    """

    def __init__(self, cache: EngineCache) -> None:
        self._cache = cache

    def recall(self, key: CacheKey) -> Verdict | None:
        """Returns what was found, or None if nothing was."""
        try:
            entry = json.loads(self._cache.read_note(key) or "")
            return Verdict(key.precision, float(entry["psnr_db"]))
        except (ValueError, KeyError, TypeError):
            return None

    def remember(self, key: CacheKey, verdict: Verdict) -> None:
        """Keeps a verdict, with its reason for people; what cannot be written is judged again."""
        entry = {"psnr_db": round(verdict.psnr_db, 2), "reason": verdict.reason}
        self._cache.write_note(key, json.dumps(entry, indent=2) + "\n")
