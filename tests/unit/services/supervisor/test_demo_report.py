# SPDX-License-Identifier: Apache-2.0
"""What the demo leaves behind: film, contact sheet, curve and report."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from services.supervisor.demo_input import users_video
from services.supervisor.demo_report import (
    PANEL_PX,
    SHEET_COLUMNS,
    ContactSheet,
    CurvePoint,
    plot_training_curve,
    side_by_side,
    write_demo_video,
    write_markdown,
)
from styleavatar_core.data.video import read_frames
from styleavatar_core.errors import InvalidInputError
from styleavatar_core.evaluation.figures import build_report, write_report

RED = np.full((90, 160, 3), (200, 0, 0), np.uint8)
BLUE = np.full((128, 128, 3), (0, 0, 200), np.uint8)


def test_driver_is_left_and_avatar_right() -> None:
    panel = side_by_side(RED, BLUE)
    assert panel[PANEL_PX // 2, PANEL_PX // 2].tolist() == [200, 0, 0]
    assert panel[PANEL_PX // 2, PANEL_PX * 3 // 2].tolist() == [0, 0, 200]
    # A wide driver is shown whole, with bars above and below.
    assert panel[10, PANEL_PX // 2].max() < 50


def test_film_and_sheet_hold_the_pairs(tmp_path: Path) -> None:
    sheet = ContactSheet(12)
    count = write_demo_video(tmp_path / "demo.mp4", [(RED, BLUE)] * 12, 25.0, sheet)
    sheet.write(tmp_path / "sheet.jpg")
    assert count == 12
    assert len(list(read_frames(tmp_path / "demo.mp4"))) == 12
    picture = cv2.imread(str(tmp_path / "sheet.jpg"))
    height, width = picture.shape[:2]
    assert (height - PANEL_PX, width) == (28, SHEET_COLUMNS * PANEL_PX // 2)
    assert picture[PANEL_PX // 4, 50].argmax() == 2  # BGR: the driver is red, above
    assert picture[PANEL_PX * 3 // 4, 50].argmax() == 0
    assert (picture[PANEL_PX:] > 200).any()  # what is synthetic is written below
    with Image.open(tmp_path / "sheet.jpg") as file:
        assert file.info["comment"] == b"Synthetic: made by StyleAvatar"


def test_a_video_without_a_statement_of_consent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="--consent") as caught:
        users_video(tmp_path / "me.mp4", None)
    assert caught.value.reason == "CONSENT_MISSING"
    assert users_video(tmp_path / "me.mp4", "I agree.").statement == "I agree."


def test_curve_is_drawn_with_and_without_psnr(tmp_path: Path) -> None:
    points = [CurvePoint(i / 10, {"l1": 1 / (i + 1)}, 20.0 if i == 3 else None) for i in range(6)]
    plot_training_curve(points, tmp_path / "curve.png")
    plot_training_curve([], tmp_path / "empty.png")
    drawn, empty = (cv2.imread(str(tmp_path / name)) for name in ("curve.png", "empty.png"))
    assert (drawn < 200).sum() > (empty < 200).sum()


def test_report_leaves_out_what_was_not_measured(tmp_path: Path) -> None:
    report = build_report("demo", {"psnr_db": 21.53, "ssim": None, "latency_ms_p50": float("nan")})
    write_report(report, tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["figures"] == {"psnr_db": 21.53}
    write_markdown(report, tmp_path / "report.md", source="a test", notes=["a note"])
    text = (tmp_path / "report.md").read_text()
    assert "| PSNR on the held-out fifth, dB | 21.53 |" in text
    assert "SSIM" not in text
    assert report["machine"]["cpu"] in text
