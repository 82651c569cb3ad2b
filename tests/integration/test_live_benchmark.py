# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.engine --only live`` drives real services with a real face."""

from pathlib import Path

import numpy as np
import skimage.data

from benchmarks.engine_parts.live import live_figures
from styleavatar_core.data.video_writer import VideoWriter


def test_it_says_what_a_frame_costs_from_end_to_end(tmp_path: Path) -> None:
    portrait = skimage.data.astronaut()[:256, 96:352]
    with VideoWriter(tmp_path / "driver.mp4", 25.0, 256, 256) as writer:
        for index in range(15):
            writer.write(np.roll(portrait, index, axis=1))
    figures = live_figures("nano", 0.6, tmp_path / "driver.mp4")
    assert figures.pop("nano.live.failed") == 0
    dropped = figures.pop("nano.live.dropped_percent")
    assert dropped is not None
    assert 0 <= dropped < 100
    assert set(figures) == {
        "nano.live.frames_per_second",
        "nano.live.tracking_core_ms",
        "nano.live.rendering_core_ms",
        "nano.live.caller_core_ms",
        "nano.live.latency_ms_p50",
        "nano.live.latency_ms_p99",
    }
    assert all(value is not None and value > 0 for value in figures.values())
