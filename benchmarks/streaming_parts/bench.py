# SPDX-License-Identifier: Apache-2.0
"""What all parts share: the options, avatars that nobody trained, and the service with them."""

from __future__ import annotations

import argparse
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.streaming_parts.service import RunningService, rendering_service
from tests.fakes.nano_bundle import write_nano_bundle
from tests.fakes.tiny_bundle import write_tiny_bundle

AVATARS = ("bench", "bench-2", "bench-3", "bench-4")
TINY = "tiny"
PROGRESS_INTERVAL_S = 30.0


@dataclass(frozen=True)
class Bench:
    """One run of the benchmark.

    Attributes:
        options: Of the command line.
        folder: Where its files may lie.
    """

    options: argparse.Namespace
    folder: Path

    def data_folder(self, preset: str) -> Path:
        """Returns a data folder with ``AVATARS`` of a preset; they are written once."""
        data = self.folder / preset
        for seed, avatar_id in enumerate(AVATARS):
            path = data / "avatars" / avatar_id
            if path.exists():
                continue
            if preset == TINY:
                write_tiny_bundle(path)
            else:
                write_nano_bundle(path, seed=seed, preset=preset)
        return data

    def service(
        self, preset: str | None = None, **settings: object
    ) -> AbstractContextManager[RunningService]:
        """Runs the rendering service with avatars of a preset, of ``--preset`` if none is said."""
        folder = self.data_folder(preset or self.options.preset)
        return rendering_service(folder, backend=self.options.backend, **settings)

    def crowded_service(self, preset: str | None = None) -> AbstractContextManager[RunningService]:
        """Runs it with admission standing aside, to see how many really hold; nobody stands by."""
        limit = 4 * self.options.most_streams
        return self.service(preset, utilization_limit=1000, stream_limit=limit, stand_by=False)


class Progress:
    """Says how far a long part is, every half a minute."""

    def __init__(self, part: str, total: int) -> None:
        """Begins to count.

        Args:
            part: Name of the part.
            total: Of what it has to do.
        """
        self._part = part
        self._total = total
        self._begun_s = self._told_s = time.monotonic()

    def tell(self, done: int, note: str = "") -> None:
        """Says how much is done, and what is of note, if that was not said just now."""
        now_s = time.monotonic()
        if now_s - self._told_s < PROGRESS_INTERVAL_S:
            return
        self._told_s = now_s
        rate = done / (now_s - self._begun_s)
        print(f"{self._part}: {done:,} of {self._total:,}, {rate:.1f} per second{note}", flush=True)
