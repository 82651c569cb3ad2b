# SPDX-License-Identifier: Apache-2.0
"""How well and how fast faces are tracked: ``python -m benchmarks.tracking --clips FILE... ``."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.report import build_report, print_report, write_report
from benchmarks.tracking_parts.accuracy import (
    clip_figures,
    cross_figures,
    liveliest,
    noise_curve,
    noise_figures,
    plot_noise,
    sample_figures,
)
from benchmarks.tracking_parts.cost import stage_figures
from benchmarks.tracking_parts.service import service_figures
from benchmarks.tracking_parts.stillness import filter_figures
from styleavatar_core.tracking.video import track_video


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, nargs="*", default=[])
    parser.add_argument("--json", type=Path, help="report; the noise plot goes beside it")
    parser.add_argument("--quick", action="store_true", help="cheap figures, for tests only")
    options = parser.parse_args()
    quick = options.quick
    figures: dict[str, float | None] = sample_figures(6.0 if quick else 16.0)
    videos = [track_video(clip) for clip in options.clips]
    for clip, video in zip(options.clips, videos, strict=True):
        figures |= clip_figures(clip.stem, video)
    if videos:
        figures |= stage_figures(options.clips[0], 20 if quick else 200)
        figures |= service_figures(options.clips[0], *((20, 40) if quick else (300, 1000)))
        figures |= filter_figures(videos)
        figures |= cross_figures(liveliest(videos), 12 if quick else 200)
    curve = noise_curve(2 if quick else 40)
    figures |= noise_figures(curve)
    named = {"clips": [clip.name for clip in options.clips], "quick": quick, "noise": curve}
    report = build_report("tracking", figures, named)
    print_report(report)
    if options.json:
        write_report(report, options.json)
        plot_noise(curve, options.json.with_name("tracking-noise.png"))


if __name__ == "__main__":
    main()
