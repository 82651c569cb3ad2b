# SPDX-License-Identifier: Apache-2.0
"""A browser's recording on its way from the file to the dataset and the overlay."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from styleavatar_core.cli.main import build_app
from styleavatar_core.data.dataset_info import read_info
from styleavatar_core.data.video import probe, read_frames
from styleavatar_core.training.dataset.prepare import prepare_dataset
from tests.fakes.browser_recording import record_in_a_browser
from tests.fakes.tiny_bundle import tiny_config

if TYPE_CHECKING:
    from styleavatar_core.sample.clip import SampleClip


def test_the_rate_of_a_browser_recording_reaches_dataset_and_overlay(
    sample_clip: SampleClip, tmp_path: Path
) -> None:
    pictures = [frame for index, _, frame in read_frames(sample_clip.path) if index < 80]
    times_ms = np.cumsum([0, *np.random.default_rng(2).integers(40, 100, len(pictures) - 1)])
    video, overlay = tmp_path / "recording.webm", tmp_path / "overlay.mp4"
    record_in_a_browser(video, [(int(t), p) for t, p in zip(times_ms, pictures, strict=True)])
    fps = 79 / (times_ms[-1] / 1000)

    command = ["track", str(video), str(tmp_path / "out.npz"), "--overlay", str(overlay)]
    result = CliRunner().invoke(build_app(), command)
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["fps"] == pytest.approx(fps)
    drawn = probe(overlay, min_duration_s=1.0)
    assert drawn.frame_count == 80
    assert drawn.duration_s == pytest.approx(80 / fps, rel=0.01)

    prepare_dataset(video, tmp_path / "dataset", tiny_config())
    info = read_info(tmp_path / "dataset")
    assert info is not None
    assert info.fps == pytest.approx(fps)
