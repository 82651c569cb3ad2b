# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.tracking`` as a whole, on the sample clip that it makes itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIGURES = {
    "sample": "rotation_error_deg expression_rmse eye_rotation_error_deg nme_percent "
    "lips_nme_percent lids_nme_percent mouth_r lids_r detected_percent",
    "synthetic": "rotation_error_deg expression_rmse eye_rotation_error_deg",
    "stage": "landmarks_ms solve_ms raster_ms tracker_settling_ms tracker_settled_ms",
    "faceverse_sized": "added_ms",
    "filter": "delay_frames",
    "cross": "rotation_r expression_r gaze_r",
    "malformed": "messages answered_percent honest_frames disturbed_frames workers_lost "
    "memory_growth_mb",
}


def test_one_command_gives_every_figure_and_the_plot(tmp_path: Path) -> None:
    report = tmp_path / "tracking.json"
    command = [sys.executable, "-m", "benchmarks.tracking", "--quick", "--json", str(report)]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False
    )
    assert result.returncode == 0, result.stderr[-4000:]
    written = json.loads(report.read_text())
    figures = written["figures"]
    wanted = {f"{group}.{name}" for group, names in FIGURES.items() for name in names.split()}
    assert wanted | {"streams_30fps_per_core"} <= set(figures)
    assert written["options"]["clips"] == ["sample.mp4"]
    assert figures["malformed.answered_percent"] == 100
    assert figures["malformed.disturbed_frames"] == figures["malformed.workers_lost"] == 0
    assert figures["malformed.honest_frames"] >= 10
    assert figures["sample.detected_percent"] == 100
    assert figures["sample.nme_percent"] < 2
    assert (tmp_path / "tracking-noise.png").read_bytes()[:4] == b"\x89PNG"
