# SPDX-License-Identifier: Apache-2.0
"""Time that pre-training saves a new avatar (paper, Sec. 3.4 and Fig. 8).

``python -m benchmarks.pretraining --clips a.mp4 b.mp4 --target c.mp4 --minutes 20``: the target is
trained from nothing, from the pre-training over the other clips, and from it in half the time. With
``--folder`` the trainings stay there, and ``curve.png``: PSNR of the watched frames over time.
Minutes are those of the training; from the video, ``prepare_minutes`` come first.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from matplotlib.figure import Figure

from benchmarks.report import build_report, print_report, write_report
from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.evaluation.evaluate import mean_psnr, pick_frames
from styleavatar_core.networks import get_preset
from styleavatar_core.sample.clip import make_sample_clip
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.dataset.prepare import prepare_dataset
from styleavatar_core.training.loop import load_average, train
from styleavatar_core.training.pretrain import pretrain
from styleavatar_core.training.record.log import LOG_NAME, read_log
from styleavatar_core.training.record.reporter import NetworkRenderer

WITHOUT, WITH, HALF = "without", "with", "with_half_the_time"
_LABELS = {
    WITHOUT: "from nothing",
    WITH: "from the pre-training",
    HALF: "from the pre-training, half the time",
}
_GOOD_DB = 24.0
_SAME_DB = 0.1  # quality counts as the same within this: a look sees few frames
_QUICK_STEPS = 4


@dataclass(frozen=True)
class Run:
    """What came of a training.

    Attributes:
        curve: (minutes, PSNR in dB) of each look at the watched frames.
        psnr_db: At the end, over many held-out frames.
        minutes: That it took.
    """

    curve: list[tuple[float, float]]
    psnr_db: float
    minutes: float

    def minutes_to(self, psnr_db: float) -> float | None:
        """Returns when the curve first reached a quality, if it did."""
        return next((minutes for minutes, seen in self.curve if seen >= psnr_db), None)


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--clips", type=Path, nargs="+", action="extend", default=[], help="to pre-train on"
    )
    parser.add_argument("--target", type=Path, help="video of another person")
    parser.add_argument("--preset", default="lite", help="network preset")
    parser.add_argument("--minutes", type=float, default=20.0, help="for the target")
    parser.add_argument("--pretrain-minutes", type=float, default=60.0, help="for the pre-training")
    parser.add_argument("--folder", type=Path, help="keeps trainings and curve here")
    parser.add_argument("--json", type=Path, help="report file")
    parser.add_argument("--quick", action="store_true", help="cheap values, never quoted")
    options = parser.parse_args(arguments)
    if bool(options.clips) != bool(options.target):
        parser.error("--clips and --target go together; give both or neither")
    return options


def main() -> None:
    """Pre-trains, and trains the target with and without."""
    read = read_options()
    preset, minutes, clips, target = read.preset, read.minutes, read.clips, read.target
    preset = "nano" if read.quick else preset
    config = TrainConfig(step_count=_QUICK_STEPS if read.quick else None, plateau_gain_db=None)
    with TemporaryDirectory() as temporary:
        work = read.folder or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        if not clips:
            *clips, target = _samples(work)
        start = work / "pretraining"
        pretrain(clips, start, preset=preset, minutes=read.pretrain_minutes, config=config)
        began = time.monotonic()
        dataset = prepare_dataset(target, work / "dataset", get_preset(preset))
        prepare_minutes = (time.monotonic() - began) / 60
        runs = {
            WITHOUT: train_target(dataset, work / WITHOUT, preset, config, minutes, None),
            WITH: train_target(dataset, work / WITH, preset, config, minutes, start),
            HALF: train_target(dataset, work / HALF, preset, config, minutes / 2, start),
        }
        draw_curves(runs, work / "curve.png")
    options = {"preset": preset, "minutes": minutes, "pretrain_minutes": read.pretrain_minutes}
    figures = {"prepare_minutes": prepare_minutes, **figures_of(runs)}
    report = build_report("pretraining", figures, options | {"quick": read.quick})
    print_report(report)
    if read.json is not None:
        write_report(report, read.json)


def train_target(
    dataset: AvatarDataset,
    folder: Path,
    preset: str,
    config: TrainConfig,
    minutes: float,
    start: Path | None,
) -> Run:
    """Trains an avatar of the target, from another training or from nothing."""
    generator_config = get_preset(preset)
    config = replace(config, minutes=minutes)
    checkpoint = train([dataset], generator_config, config, folder, start=start)
    networks, clock = load_average(checkpoint, generator_config)
    frames = pick_frames(dataset, 4 if config.step_count else 60)
    psnr_db = mean_psnr(dataset, NetworkRenderer(dataset, networks), frames)
    rows = read_log(folder / LOG_NAME)
    curve = [(row["elapsed_s"] / 60, row["psnr_db"]) for row in rows if "psnr_db" in row]
    return Run(curve, psnr_db, clock.elapsed_s / 60)


def figures_of(runs: dict[str, Run]) -> dict[str, float | None]:
    """Returns quality and times of each run; the same quality is that of the one from nothing."""
    figures: dict[str, float | None] = {}
    same_db = runs[WITHOUT].curve[-1][1] - _SAME_DB
    for name, run in runs.items():
        figures[f"{name}.psnr_db"] = run.psnr_db
        figures[f"{name}.train_minutes"] = run.minutes
        figures[f"{name}.minutes_to_24_db"] = run.minutes_to(_GOOD_DB)
        figures[f"{name}.minutes_to_same_quality"] = run.minutes_to(same_db)
    return figures


def draw_curves(runs: dict[str, Run], path: Path) -> None:
    """Writes the watched frames' PSNR over minutes as a picture."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, run in runs.items():
        axes.plot(*zip(*run.curve, strict=True), label=_LABELS[name])
    axes.set_xlabel("minutes of training")
    axes.set_ylabel("PSNR of the watched frames, dB")
    axes.legend()
    figure.savefig(path, dpi=120)


def _samples(work: Path) -> list[Path]:
    """Makes three clips of one photograph that move differently: the command runs, no more."""
    return [
        make_sample_clip(work / f"sample-{seed}.mp4", 6.0, size_px=256, seed=seed).path
        for seed in range(3)
    ]


if __name__ == "__main__":
    main()
