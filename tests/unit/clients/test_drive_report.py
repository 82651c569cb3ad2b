# SPDX-License-Identifier: Apache-2.0
"""What a drive reports is what was answered."""

from __future__ import annotations

import numpy as np
import pytest
from styleavatar_client.drive_report import DriveReport
from styleavatar_client.streaming import AvatarFrame

IMAGE = np.zeros((2, 2, 3), np.uint8)


def test_counts_and_percentiles() -> None:
    report = DriveReport()
    for index in range(101):
        report.add(
            AvatarFrame(index, 0.0, IMAGE, latency_s=index / 1000, held=index < 3, dropped_count=2)
        )
    report.add(AvatarFrame(101, 0.0, None, latency_s=0.05, failure="bad frame"))
    figures = report.figures()
    assert figures["answers_count"] == 102
    assert (figures["held_count"], figures["failed_count"], figures["dropped_count"]) == (3, 1, 202)
    assert figures["latency_ms_p50"] == pytest.approx(50)
    assert figures["latency_ms_p99"] == pytest.approx(99, abs=0.1)
    assert figures["frames_per_second"] > 0
    assert "3 held" in report.lines()[0]


def test_what_was_not_measured_is_missing() -> None:
    figures = DriveReport().figures()
    assert figures["answers_count"] == 0
    assert not {"frames_per_second", "latency_ms_p50"} & set(figures)
    assert len(DriveReport().lines()) == 1
