# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from rich.console import Console

from styleavatar_core.cli.progress import progress_bars, stop_on_interrupt
from styleavatar_core.types import Progress


def test_progress_prints_lines_where_there_is_no_terminal() -> None:
    console = Console(record=True, force_terminal=False, width=100)
    with progress_bars(console) as show:
        for step in range(50):
            show(Progress("training", step / 50, f"step {step}"))
        for _ in range(2):
            show(Progress("training", 1.0, "done"))
        show(Progress("export", 0.0))
    lines = console.export_text().splitlines()
    # The first of a stage and its end, once; not one for each of the fifty steps.
    assert [line.split()[0] for line in lines] == ["Training", "Training", "Measuring"]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_is_known_is_shown_and_nothing_else(is_terminal: bool) -> None:
    console = Console(record=True, force_terminal=is_terminal, width=100)
    losses = {"l1": 0.25, "mask": 0.125, "judge": 7.0}  # the judge's own is none of the avatar's
    with progress_bars(console) as show:
        show(Progress("animating", 0.5, eta_s=-3.0))
        show(Progress("training", 0.5, "step [/3]", eta_s=65.0, losses=losses, psnr_db=20.0))
    lines = console.export_text().splitlines()
    animating = [line for line in lines if "Animating" in line]
    assert animating
    assert "to go" not in "".join(animating)
    training = [line for line in lines if "Training" in line][-1]
    assert "step [/3] · 0:01:05 to go · loss 0.375 · PSNR 20.0 dB" in training


@pytest.fixture
def usual_interrupts() -> Iterator[None]:
    """As in a terminal: shells have processes in the background ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("usual_interrupts")
def test_a_second_interrupt_ends_what_does_not_hear_the_first() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_on_interrupt() as should_stop:
        assert not should_stop()
        signal.raise_signal(signal.SIGINT)
        assert should_stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_processes_of_torchrun_may_be_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with stop_on_interrupt() as should_stop:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        assert should_stop()
