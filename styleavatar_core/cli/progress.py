# SPDX-License-Identifier: Apache-2.0
"""Shows progress events to a person: one bar per stage on a terminal, lines in a log."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from styleavatar_core.errors import TrainingCanceled
from styleavatar_core.types import Progress

_LINE_INTERVAL_S = 10.0


@contextmanager
def progress_bars(console: Console | None = None) -> Iterator[Callable[[Progress], None]]:
    """Yields a callable for ``on_progress`` that shows how far each stage has come.

    Args:
        console: Where; None for standard error. On a terminal a stage has a bar, which stands as it
            is when the block ends; elsewhere a line when it begins, when it ends, and now and then.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _lines_to(console)
        return
    with Bars(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        console=console,
    ) as bars:
        tasks: dict[str, TaskID] = {}

        def show(event: Progress) -> None:
            if event.stage not in tasks:
                tasks[event.stage] = bars.add_task(_title(event), total=1.0, detail="")
            bars.update(tasks[event.stage], completed=event.fraction, detail=_detail(event))

        yield show


def _lines_to(console: Console) -> Callable[[Progress], None]:
    last_stage, last_line, next_line_s = "", "", 0.0

    def show(event: Progress) -> None:
        nonlocal last_stage, last_line, next_line_s
        now_s = time.monotonic()
        line = f"{_title(event):<10} {event.fraction:4.0%}  {_detail(event)}"
        is_due = event.stage != last_stage or event.fraction >= 1.0 or now_s >= next_line_s
        if is_due and line != last_line:  # a service may tell of a stage's end several times
            console.print(line, markup=False, highlight=False, soft_wrap=True)
            last_stage, last_line, next_line_s = event.stage, line, now_s + _LINE_INTERVAL_S

    return show


@contextmanager
def training_progress(tensorboard: Path | None) -> Iterator[Callable[[Progress], None]]:
    """Yields a callable for ``on_progress`` that draws bars, and writes to TensorBoard if wanted.

    Args:
        tensorboard: Folder of TensorBoard's files; None writes none.
    """
    with progress_bars() as show:
        if tensorboard is None:
            yield show
            return
        from styleavatar_core.training.record.tensorboard import tensorboard_log

        with tensorboard_log(tensorboard) as write:

            def tell(event: Progress) -> None:
                show(event)
                write(event)

            yield tell


def _title(event: Progress) -> str:
    return "Measuring" if event.stage == "export" else event.stage.capitalize()


def _detail(event: Progress) -> str:
    parts = [event.message]
    if event.eta_s is not None and event.eta_s > 0:
        parts.append(f"{timedelta(seconds=round(event.eta_s))} to go")
    if event.losses:
        own = [value for name, value in event.losses.items() if not name.startswith("judge")]
        parts.append(f"loss {sum(own):.3f}")
    if event.psnr_db is not None:
        parts.append(f"PSNR {event.psnr_db:.1f} dB")
    return " · ".join(part for part in parts if part)


@contextmanager
def stop_on_interrupt(*, goes_on: bool = False) -> Iterator[Callable[[], bool]]:
    """Yields a callable for ``should_stop``: true after Ctrl-C or SIGTERM, so work can be saved.

    A second Ctrl-C ends the process as if nobody had asked, for when the first is not heard.

    Args:
        goes_on: Whether the same command goes on where it was stopped; told then.

    Raises:
        TrainingCanceled: The work was stopped; says to a person what that means.
    """
    asked = False
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        # torchrun hands on to its processes the Ctrl-C that the terminal has sent them already.
        if "WORLD_SIZE" not in os.environ:
            signal.signal(signal.SIGINT, before[signal.SIGINT])

    for number in before:
        signal.signal(number, ask)
    try:
        yield lambda: asked
    except TrainingCanceled as stop:
        told = "stopped; the same command goes on from here" if goes_on else "stopped"
        raise TrainingCanceled(told) from stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
