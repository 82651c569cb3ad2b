# SPDX-License-Identifier: Apache-2.0
"""The README's commands, made short: they run, and leave what they say."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from services.supervisor.supervisor import Supervisor
from styleavatar_core.avatar.bundle import read_bundle
from styleavatar_core.data.video import probe
from styleavatar_core.sample.clip import SampleClip
from tests.e2e.readme import block_with, commands, program, python_blocks

pytestmark = pytest.mark.timeout(900)

# What a reader waits for and a test need not.
SHORTER = {
    "sample-clip sample.mp4": "sample-clip sample.mp4 --seconds 6 --size 256",
    "--minutes 5": "--minutes 0.05",
    "--preset lite --minutes 25": "--preset nano --minutes 0.05",
}


def run(line: str, folder: Path, *more: str) -> str:
    for long, short in SHORTER.items():
        line = line.replace(long, short)
    result = subprocess.run(
        [*program(line), *more],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, f"{line}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def test_the_path_without_services(tmp_path: Path) -> None:
    for line in block_with("sample-clip").splitlines():
        run(line, tmp_path)
    (block,) = [block for block in python_blocks() if "AvatarRenderer" in block]
    code = f"{block}\nprint('last picture', image.shape, index)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert "last picture (128, 128, 3) 149" in result.stdout, result.stderr
    assert probe(tmp_path / "overlay.mp4").frame_count == 150
    assert (tmp_path / "tracked.npz").is_file()
    assert list(tmp_path.rglob("*.onnx"))
    (manifest,) = tmp_path.rglob("avatar.json")
    assert read_bundle(manifest.parent, verify=True).manifest.metrics["psnr_db"] > 0


def test_create_through_the_services(
    system: Supervisor, sample_clip: SampleClip, tmp_path: Path
) -> None:
    (line,) = [line for line in commands() if " create " in line]
    shutil.copy(sample_clip.path, tmp_path / "me.mp4")
    bundle = tmp_path / "bundle.zip"
    run(line, tmp_path, "--gateway", system.endpoints.gateway_url, "-o", str(bundle))
    assert read_bundle(bundle).manifest.consent.subject == "Me"


def test_the_demo_leaves_film_curve_and_report(tmp_path: Path) -> None:
    line = ".venv/bin/styleavatar demo --out out --seconds 6 --minutes 0.05 --exit"
    printed = run(line, tmp_path)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["benchmark"] == "demo"
    assert {"psnr_db", "ssim", "nearest_sample_psnr_db", "train_minutes", "frames_per_second",
            "latency_ms_p50", "latency_ms_p95", "latency_ms_p99", "total_minutes",
            } <= set(report["figures"])  # fmt: skip
    assert probe(tmp_path / "out" / "demo.mp4", min_duration_s=0.0).frame_count == 30
    assert (tmp_path / "out" / "training_curve.png").stat().st_size > 5000
    assert "NASA" in (tmp_path / "out" / "report.md").read_text()
    assert "NASA" in printed
