# SPDX-License-Identifier: Apache-2.0
"""Quality of avatars trained from real clips, on their held-out fifth (paper, Tables 2-3).

``python -m benchmarks.quality --clips a.mp4 b.mp4 --preset lite --minutes 25``
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from benchmarks.report import build_report, print_report, write_report
from styleavatar_core.data.sample_clip import make_sample_clip
from styleavatar_core.provenance.consent import make_consent
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.create import (
    DATASET_FOLDER,
    SHEET_NAME,
    TRAINING_FOLDER,
    create_avatar,
)
from styleavatar_core.training.measure import measure_avatar, measure_control

VARIANTS = {"full": "", "nearest_sample": "nearest_sample_", "mean_frame": "mean_frame_"}
_METRICS = ("psnr_db", "ssim", "sharpness")
_CONTROLS = ("rotation_r", "mouth_r", "smile_r", "lids_r", "gaze_r")
_QUICK_STEPS = 4


def main(
    clips: Annotated[list[Path] | None, typer.Option(help="Videos; none makes a sample.")] = None,
    preset: Annotated[str, typer.Option(help="Network preset.")] = "lite",
    minutes: Annotated[float, typer.Option(help="Training time per clip.")] = 25.0,
    variants: Annotated[list[str] | None, typer.Option(help="Variants to show.")] = None,
    driver: Annotated[Path | None, typer.Option(help="Video of another person.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Keeps avatars and sheets here.")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Report file.")] = None,
    quick: Annotated[bool, typer.Option(help="Cheap values, never quoted.")] = False,
) -> None:
    with TemporaryDirectory() as temporary:
        work = folder or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        if not clips:
            clips = [make_sample_clip(work / "sample.mp4", 6.0, size_px=256, seed=0).path]
        figures: dict[str, float] = {}
        for clip in clips:
            figures |= measure_clip(
                clip,
                work / clip.stem,
                preset="nano" if quick else preset,
                config=TrainConfig(minutes=minutes, step_count=_QUICK_STEPS if quick else None),
                variants=variants or list(VARIANTS),
                driver=driver,
                frame_limit=4 if quick else None,
            )
    options = {"preset": preset, "minutes": minutes, "quick": quick}
    report = build_report("quality", figures, options)
    print_report(report)
    if json_path is not None:
        write_report(report, json_path)


def measure_clip(
    clip: Path,
    work: Path,
    *,
    preset: str,
    config: TrainConfig,
    variants: list[str],
    driver: Path | None,
    frame_limit: int | None,
) -> dict[str, float]:
    """Trains an avatar of a clip and measures it through its engine."""
    bundle = create_avatar(
        clip,
        work,
        work / "avatar",
        preset=preset,
        minutes=config.minutes,
        config=config,
        consent=make_consent("This clip was given to this benchmark for the purpose of measuring."),
    )
    measured = measure_avatar(
        bundle, work / DATASET_FOLDER, frame_limit=frame_limit, sheet_path=work / SHEET_NAME
    )
    figures = {
        f"{clip.stem}.{variant}.{metric}": measured[VARIANTS[variant] + metric]
        for variant in variants
        for metric in _METRICS
    }
    figures[f"{clip.stem}.full.train_minutes"] = train_minutes(work / TRAINING_FOLDER, preset)
    if driver is not None:
        control = measure_control(bundle, driver, frame_limit=frame_limit)
        figures |= {f"{clip.stem}.full.{name}": control[name] for name in _CONTROLS}
    return figures


def train_minutes(folder: Path, preset: str) -> float:
    from styleavatar_core.networks import get_preset
    from styleavatar_core.training.loop import CHECKPOINT_NAME, load_average

    _, clock = load_average(folder / CHECKPOINT_NAME, get_preset(preset))
    return clock.elapsed_s / 60


if __name__ == "__main__":
    typer.run(main)
