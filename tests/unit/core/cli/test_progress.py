# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import signal

import pytest

from styleavatar_core.cli.progress import stop_on_interrupt


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
