# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from styleavatar_core.cli.train import _telling
from styleavatar_core.types import Progress


def test_the_capture_report_is_told_once_and_missing_it_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = [Progress("tracking", 1.0, ""), *[Progress("rendering", 0.1 * n, "") for n in (1, 2)]]
    for report, told in ((tmp_path / "missing.txt", 0), (tmp_path / "report.txt", 1)):
        (tmp_path / "report.txt").write_text("Nothing is missing.")
        seen: list[Progress] = []
        show = _telling(seen.append, report)
        for event in events:
            show(event)
        assert seen == events
        assert capsys.readouterr().out.count("Nothing is missing.") == told
