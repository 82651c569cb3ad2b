# SPDX-License-Identifier: Apache-2.0
"""How ``python -m benchmarks.engine`` is asked."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from benchmarks.engine import measure_all, read_options
from benchmarks.engine_parts import apart
from tests.fakes.nano_bundle import write_nano_bundle


def test_two_avatars_of_one_preset_and_name_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (write_nano_bundle(tmp_path / name / "avatar") for name in ("anna", "ben"))
    large = write_nano_bundle(tmp_path / "large" / "avatar", preset="lite")
    assert read_options(["--avatar", str(first), str(large)]).avatar == [first, large]
    with pytest.raises(SystemExit):
        read_options(["--avatar", str(first), str(large), str(second)])
    assert "more than one is called nano.avatar;" in capsys.readouterr().err


def test_no_engine_on_a_gpu_is_compared_with_a_baseline_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.engine.DEVICE", "cpu")
    assert read_options([]).baselines == ["eager", "eager_malloc", "naive"]
    monkeypatch.setattr("benchmarks.engine.DEVICE", "cuda")
    assert read_options([]).baselines == ["eager"]
    with pytest.raises(SystemExit):
        read_options(["--baselines", "naive"])


def test_engines_are_measured_without_the_services_contracts() -> None:
    """Their generated modules want a protobuf of their version, which a bare GPU's may not be."""
    names = "[name for name in sys.modules if name.startswith(('styleavatar.', 'grpc'))]"
    asked = [sys.executable, "-c", f"import sys, benchmarks.engine; print({names})"]
    assert subprocess.run(asked, check=True, capture_output=True, text=True).stdout == "[]\n"


def test_nvjpeg_is_a_step_of_its_own_that_costs_no_other_figure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.engine.DEVICE", "cuda")
    monkeypatch.setattr("benchmarks.engine.apart", lambda step, **options: {step.__name__: 1.0})
    steps = list(islice(measure_all(read_options(["--quick"])), 3))
    assert {"jpeg_figures": 1.0} in steps
    assert {"nvjpeg_figures": 1.0} in steps


def _divide(number: int, by: int) -> float:
    return number / by


def test_a_step_that_fails_costs_its_own_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(apart, "failed_steps", [])
    assert apart.apart(_divide, 1, by=2) == 0.5
    assert apart.apart(os._exit, 3) is None
    assert apart.apart(_divide, 1, by=0) is None
    assert [step.partition(":")[0] for step in apart.failed_steps] == ["_exit(3)", "_divide(1)"]
    assert "_divide(1): ZeroDivisionError: division by zero" in capsys.readouterr().err
