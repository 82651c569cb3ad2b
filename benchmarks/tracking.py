# SPDX-License-Identifier: Apache-2.0
"""How well and how fast faces are tracked: ``python -m benchmarks.tracking --clips FILE... ``.

Without clips it is the sample clip that is measured, and its person is also the one who is driven.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import build_report, print_report, refuse_repeats, write_report
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
from styleavatar_core.sample.clip import make_sample_clip
from styleavatar_core.tracking.video import track_video


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--clips", type=Path, nargs="*", default=[], help="default: the sample clip"
    )
    parser.add_argument("--json", type=Path, help="report; the noise plot goes beside it")
    parser.add_argument("--quick", action="store_true", help="cheap figures, for tests only")
    options = parser.parse_args(arguments)
    refuse_repeats(parser, "--clips", [clip.stem for clip in options.clips])
    return options


def main() -> None:
    """Measures clips, noise, cost and service."""
    options = read_options()
    seconds = 6.0 if options.quick else 16.0
    figures: dict[str, float | None] = sample_figures(seconds)
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder) / "sample.mp4"
        if not options.clips:
            make_sample_clip(sample, seconds, fps=25, size_px=512)
        clips = options.clips or [sample]
        figures |= measure(clips, quick=options.quick)
    curve = noise_curve(2 if options.quick else 40)
    figures |= noise_figures(curve)
    named = {"clips": [clip.name for clip in clips], "quick": options.quick, "noise": curve}
    report = build_report("tracking", figures, named)
    print_report(report)
    if options.json:
        write_report(report, options.json)
        plot_noise(curve, options.json.with_name("tracking-noise.png"))


def measure(clips: list[Path], *, quick: bool) -> dict[str, float | None]:
    """Measures all that needs clips of faces; cost and service on the first."""
    figures: dict[str, float | None] = {}
    videos = [track_video(clip) for clip in clips]
    for clip, video in zip(clips, videos, strict=True):
        figures |= clip_figures(clip.stem, video)
    figures |= stage_figures(clips[0], 20 if quick else 200)
    figures |= service_figures(clips[0], *((20, 40) if quick else (300, 1000)))
    figures |= filter_figures(videos)
    figures |= cross_figures(liveliest(videos), 12 if quick else 200)
    return figures


if __name__ == "__main__":
    main()
