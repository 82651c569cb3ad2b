# SPDX-License-Identifier: Apache-2.0
"""A capture report as files: text, JSON and one picture."""

from __future__ import annotations

import json
from pathlib import Path

from styleavatar_core.data.picture import encode_png
from styleavatar_core.tracking.capture import CaptureReport
from styleavatar_core.tracking.capture_picture import draw_capture_report

REPORT_NAME = "report.txt"


def write_capture_report(report: CaptureReport, folder: Path) -> None:
    """Writes ``report.txt``, ``report.json`` and ``report.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REPORT_NAME).write_text(report.to_text() + "\n")
    (folder / "report.json").write_text(json.dumps(report.to_dict(), indent=1) + "\n")
    (folder / "report.png").write_bytes(encode_png(draw_capture_report(report)))
