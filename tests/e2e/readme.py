# SPDX-License-Identifier: Apache-2.0
"""Reads the README's shell commands, so that the tests run what it says."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ".venv/bin/styleavatar"
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def shell_blocks() -> list[str]:
    """Returns the README's shell blocks, in order."""
    return _BLOCK.findall((ROOT / "README.md").read_text())


def python_blocks() -> list[str]:
    """Returns the README's Python blocks, in order."""
    return _PYTHON.findall((ROOT / "README.md").read_text())


def commands() -> list[str]:
    """Returns every line of every shell block."""
    return [line for block in shell_blocks() for line in block.splitlines() if line.strip()]


def block_with(text: str) -> str:
    """Returns the one shell block that holds a text."""
    (block,) = [block for block in shell_blocks() if text in block]
    return block


def program(line: str) -> list[str]:
    """Splits a command line of the README and puts this environment's program in its place."""
    first, *rest = shlex.split(line)
    assert first == PROGRAM
    return [str(Path(sys.executable).with_name("styleavatar")), *rest]
