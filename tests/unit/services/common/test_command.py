# SPDX-License-Identifier: Apache-2.0
"""What a service makes of arguments: it is told by its environment."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(service: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"services.{service}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("service", ["gateway", "tracking", "rendering", "training"])
def test_help_lists_what_may_be_set(service: str) -> None:
    result = run(service, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    for variable in ("STYLEAVATAR_DATA", f"STYLEAVATAR_{service.upper()}_HOST (default 127.0.0.1)"):
        assert f"\n{variable}\n  " in result.stdout


def test_an_argument_is_not_passed_over_in_silence() -> None:
    result = run("tracking", "--port", "1")
    assert result.returncode == 2
    assert result.stderr.startswith("--port 1: a service takes no arguments")
