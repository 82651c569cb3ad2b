# SPDX-License-Identifier: Apache-2.0
"""Shows how far the demo has come: bars on a terminal, lines in a log."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

_LINE_INTERVAL_S = 10.0


class StageBars:
    """One bar per stage on a terminal; elsewhere a line when a stage begins and now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: dict[str, TaskID] = {}
        self._last_line_s = 0.0
        self._last_stage = ""
        self._progress = Progress(
            TextColumn("{task.description:<14}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )

    def __enter__(self) -> StageBars:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Lets the bars stand as they are."""
        if self._console.is_terminal:
            self._progress.stop()

    def update(self, stage: str, fraction: float, note: str = "") -> None:
        """Shows that a stage has come so far.

        Args:
            stage: Name of the stage; a new one starts a new bar.
            fraction: Share that is done, in [0, 1].
            note: One line: losses, time left.
        """
        if not self._console.is_terminal:
            self._line(stage, fraction, note)
            return
        if stage not in self._bars:
            self._bars[stage] = self._progress.add_task(stage, total=1.0, note=note)
        self._progress.update(self._bars[stage], completed=fraction, note=note)

    def _line(self, stage: str, fraction: float, note: str) -> None:
        now_s = time.monotonic()
        begins, ends = stage != self._last_stage, fraction >= 1.0
        if begins or ends or now_s - self._last_line_s >= _LINE_INTERVAL_S:
            self._console.print(f"{stage:<14} {fraction:4.0%}  {note}", highlight=False)
            self._last_stage, self._last_line_s = stage, now_s


def note_of(eta_s: float | None, losses: dict[str, float], psnr_db: float | None) -> str:
    """Writes time left, losses and PSNR as one short line."""
    parts = []
    if eta_s is not None and eta_s > 0:
        parts.append(f"{eta_s // 60:.0f}:{eta_s % 60:02.0f} left")
    if psnr_db is not None:
        parts.append(f"PSNR {psnr_db:.1f} dB")
    if losses:
        parts.append("loss " + " ".join(f"{name} {value:.3f}" for name, value in losses.items()))
    return " · ".join(parts)
