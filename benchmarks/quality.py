# SPDX-License-Identifier: Apache-2.0
"""Quality of avatars trained from real clips, on their held-out fifth (paper, Tables 2-3).

``python -m benchmarks.quality --clips a.mp4 b.mp4 --preset lite --minutes 25``; every
ablation too with ``--variants all``; with ``--variants published`` every variant that does one
thing as the published networks do, with ``--variants tried`` every change to them that was given
up; equal steps instead of equal time with ``--steps``. Sheets go to
``out/quality`` or ``--folder``, where avatars stay too: ``ablations.jpg`` (as Fig. 7) and
``moves.jpg`` (as Fig. 4: heads moved across, down and diagonally, and tilted). Figures of a
clip are printed as soon as it is done, and ``--json`` is written anew then.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.quality_parts.moves import move_variant
from benchmarks.quality_parts.variants import (
    BASELINES,
    DEFAULT_VARIANTS,
    TRAINED_VARIANTS,
    VARIANT_SETS,
    Options,
    Render,
    evaluate_variant,
    train_variant,
)
from benchmarks.report import build_report, print_report, refuse_repeats, write_report
from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.data.picture import encode_jpeg
from styleavatar_core.data.spread import spread_evenly
from styleavatar_core.engine.avatar_renderer import AvatarRenderer
from styleavatar_core.evaluation.baselines import NearestSample
from styleavatar_core.evaluation.comparison import comparison_sheet
from styleavatar_core.evaluation.control import control_fidelity
from styleavatar_core.evaluation.evaluate import held_out_truth
from styleavatar_core.evaluation.moves import MoveResult, moves_sheet
from styleavatar_core.networks import get_preset
from styleavatar_core.sample.clip import make_sample_clip
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.create import DATASET_FOLDER
from styleavatar_core.training.dataset.prepare import prepare_dataset
from styleavatar_core.training.measure import drive_avatar
from styleavatar_core.training.record.checkpoint import checkpoint_in
from styleavatar_core.training.record.reporter import NetworkRenderer
from styleavatar_core.types import ByteArray

_METRICS = (
    "psnr_db",
    "ssim",
    "sharpness",
    "flicker",
    "no_background_psnr_db",
    "no_background_ssim",
    "lpips",
    "fid",
    "no_background_lpips",
    "no_background_fid",
)
_CONTROLS = ("rotation_r", "mouth_r", "jaw_r", "smile_r", "lids_r", "gaze_r")
_QUICK_STEPS = 4
_SHOWN_FRAMES = 4
_MOVED_FRAMES = 5
_SHEETS_FOLDER = Path("out") / "quality"


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line; ``variants`` has each variant once, sets taken apart."""
    parser = argparse.ArgumentParser(description=__doc__)
    several: dict[str, Any] = {"nargs": "+", "action": "extend"}
    parser.add_argument(
        "--clips", type=Path, default=[], help="videos; none makes a sample", **several
    )
    parser.add_argument("--preset", default="lite", help="network preset")
    parser.add_argument(
        "--minutes", type=float, default=25.0, help="training time per clip and variant"
    )
    parser.add_argument("--steps", type=int, help="equal steps instead of equal time")
    names = f"{', '.join((*TRAINED_VARIANTS, *BASELINES))}; or {', '.join(VARIANT_SETS)}"
    parser.add_argument("--variants", help=f"of {names}", **several)
    parser.add_argument("--driver", type=Path, help="video of another person")
    parser.add_argument("--lpips-weights", type=Path, help="TorchScript, for LPIPS")
    parser.add_argument("--fid-weights", type=Path, help="TorchScript, for FID")
    parser.add_argument("--folder", type=Path, help="keeps avatars here, and sheets")
    parser.add_argument("--json", type=Path, help="report file")
    parser.add_argument("--quick", action="store_true", help="cheap values, never quoted")
    options = parser.parse_args(arguments)
    wanted = [VARIANT_SETS.get(name, [name]) for name in options.variants or DEFAULT_VARIANTS]
    options.variants = list(dict.fromkeys(chain.from_iterable(wanted)))
    if unknown := set(options.variants) - {*TRAINED_VARIANTS, *BASELINES}:
        parser.error(f"--variants: unknown: {', '.join(sorted(unknown))}; choose of {names}")
    refuse_repeats(parser, "--clips", [clip.stem for clip in options.clips])
    return options


def main() -> None:
    """Measures clip after clip."""
    read = read_options()
    options = Options(
        preset="nano" if read.quick else read.preset,
        config=TrainConfig(
            minutes=read.minutes,
            step_count=_QUICK_STEPS if read.quick else read.steps,
            plateau_gain_db=None,  # the same minutes for every row
        ),
        variants=read.variants,
        driver=read.driver,
        frame_limit=4 if read.quick else None,
        moved_frames=1 if read.quick else _MOVED_FRAMES,
        lpips_weights=read.lpips_weights,
        fid_weights=read.fid_weights,
    )
    described = {"preset": options.preset, "minutes": read.minutes, "steps": read.steps}
    described |= {"quick": read.quick, "variants": read.variants}
    with TemporaryDirectory() as temporary:
        work = read.folder or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        clips = read.clips
        if not clips:
            clips = [make_sample_clip(work / "sample.mp4", 6.0, size_px=256, seed=0).path]
        figures: dict[str, float | None] = {}
        for clip in clips:
            sheets = (read.folder or _SHEETS_FOLDER) / clip.stem
            measured = measure_clip(clip, work / clip.stem, sheets, options)
            of_clip = {f"{clip.stem}.{name}": value for name, value in measured.items()}
            figures |= of_clip
            print_report(build_report("quality", dict(of_clip)))
            if read.json is not None:
                write_report(build_report("quality", figures, described), read.json)


def measure_clip(clip: Path, work: Path, sheets: Path, options: Options) -> dict[str, float]:
    """Trains every variant on a clip, with equal time, and measures and pictures them."""
    dataset = prepare_dataset(
        clip,
        work / DATASET_FOLDER,
        get_preset(options.preset),
        checkpoint=checkpoint_in(work),
    )
    figures: dict[str, float] = {}
    evaluated: dict[str, float] = {}
    renders: dict[str, Render] = {}
    moves: list[list[MoveResult]] = []
    for variant in [name for name in options.variants if name in TRAINED_VARIANTS] or ["full"]:
        networks, minutes = train_variant(clip, dataset, work, variant, options)
        renders[variant] = NetworkRenderer(dataset, networks)
        bundle = work / "avatar" if variant == "full" else None
        evaluated = evaluate_variant(dataset, renders[variant], bundle, options)
        if variant in options.variants:
            figures |= _named(variant, evaluated, "")
            figures[f"{variant}.train_minutes"] = minutes
        if variant in ("full", "no_sliding_window"):
            count = options.moved_frames
            shown, moved = move_variant(dataset, networks, bundle, count)
            moves += shown
            figures |= {f"{variant}.{name}": value for name, value in moved.items()}
    for variant in [name for name in options.variants if name in BASELINES]:
        figures |= _named(variant, evaluated, BASELINES[variant])
    sheets.mkdir(parents=True, exist_ok=True)
    (sheets / "ablations.jpg").write_bytes(encode_jpeg(ablation_sheet(dataset, renders)))
    if moves:
        (sheets / "moves.jpg").write_bytes(encode_jpeg(moves_sheet(moves)))
    if options.driver is not None and "full" in renders:
        with closing(AvatarRenderer(work / "avatar")) as renderer:
            frames = drive_avatar(renderer, options.driver, frame_limit=options.frame_limit)
        control = control_fidelity(frames.wanted, frames.seen)
        figures |= {f"full.{name}": control[name] for name in _CONTROLS}
    return figures


def ablation_sheet(dataset: AvatarDataset, renders: dict[str, Render]) -> ByteArray:
    """Shows held-out frames: the truth, the nearest sample and all variants."""
    train_parameters = [dataset.parameters[index] for index in dataset.train_indices]
    nearest = NearestSample(train_parameters, dataset.info.crop)
    columns: dict[str, Callable[[int], ByteArray]] = {
        "truth": lambda index: held_out_truth(dataset, index),
        "nearest_sample": lambda index: held_out_truth(
            dataset, nearest.find(dataset.parameters[index])
        ),
    }
    columns |= {name: partial(_picture, render) for name, render in renders.items()}
    return comparison_sheet(columns, spread_evenly(dataset.held_out_indices, _SHOWN_FRAMES))


def _picture(render: Render, index: int) -> ByteArray:
    return render(index)[0]


def _named(variant: str, evaluated: dict[str, float], prefix: str) -> dict[str, float]:
    return {
        f"{variant}.{metric}": evaluated[prefix + metric]
        for metric in _METRICS
        if prefix + metric in evaluated
    }


if __name__ == "__main__":
    main()
