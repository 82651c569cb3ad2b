# SPDX-License-Identifier: Apache-2.0
"""Where a command shall write is checked before its work begins."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from styleavatar_core.cli.main import build_app


@pytest.mark.parametrize(
    "command", [("create", "video.mp4"), ("drive", "--avatar", "anna", "--video", "video.mp4")]
)
def test_a_folder_is_refused_before_the_work(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("video.mp4").touch()
    result = CliRunner().invoke(build_app(), [*command, "-o", "."])
    assert result.exit_code == 2
    assert "'.' is a directory" in result.output
