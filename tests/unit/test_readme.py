# SPDX-License-Identifier: Apache-2.0
"""Every command of the README is one that exists, with options that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from styleavatar_core.cli.main import build_app
from tests.e2e.readme import ROOT, commands

MAKE_TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
LINK = re.compile(r"\]\(([^)#]+)")


def lines_of(program: str) -> list[str]:
    return [line for line in commands() if line.startswith(program)]


def test_every_command_is_of_a_kind_that_a_test_runs() -> None:
    # curl lines (with the two lines that read ids) run in tests/e2e/test_readme_curl.py.
    known = ("make ", ".venv/bin/styleavatar ", "curl ", "JOB_ID=", "AVATAR_ID=")
    assert [line for line in commands() if not line.startswith(known)] == []


@pytest.mark.parametrize("line", lines_of("make "))
def test_make_targets_exist(line: str) -> None:
    assert line.split()[1] in MAKE_TARGETS


@pytest.mark.parametrize("line", lines_of(".venv/bin/styleavatar"))
def test_commands_and_options_exist(line: str) -> None:
    _, name, *arguments = shlex.split(line)
    group = typer.main.get_command(build_app())
    command = group.get_command(typer.Context(group), name)
    assert command is not None
    assert "nstalled" not in (command.help or "")
    known = {option for param in command.params for option in param.opts}
    assert {word for word in arguments if word.startswith("-")} <= known


@pytest.mark.parametrize(
    "page", sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")]), ids=str
)
def test_links_lead_somewhere(page: Path) -> None:
    targets = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert [link for link in targets if not (page.parent / link).exists()] == []
