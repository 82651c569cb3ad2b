# SPDX-License-Identifier: Apache-2.0
"""What the gateway's page tells people to type."""

from __future__ import annotations

import re
from pathlib import Path

import typer

import services.gateway
from styleavatar_core.cli.main import build_app

PAGE = Path(services.gateway.__file__).parent / "pages" / "index.html"


def test_the_page_shows_a_command_that_drives_an_avatar() -> None:
    (words,) = re.findall(r"styleavatar drive (.*?)</pre>", PAGE.read_text())
    (filled_in,) = re.findall(r"textContent = `( --tracking .*?)`", PAGE.read_text())
    group = typer.main.get_command(build_app())
    drive = group.get_command(typer.Context(group), "drive")
    known = {option for parameter in drive.params for option in parameter.opts}
    named = set(re.findall(r"--[a-z-]+", words + filled_in))
    assert {"--avatar", "--video", "--tracking"} <= named <= known
