# SPDX-License-Identifier: Apache-2.0
"""Quality of avatars trained from real clips, on their held-out fifth (paper, Tables 2-3).

``python -m benchmarks.quality --clips a.mp4 --clips b.mp4 --preset lite --minutes 25``; every
ablation too with ``--variants all``; with ``--variants published`` every variant that does one
thing as the published networks do, with ``--variants tried`` every change to them that was given
up; equal steps instead of equal time with ``--steps``. Sheets go to
``out/quality`` or ``--folder``, where avatars stay too: ``ablations.jpg`` (as Fig. 7) and
``translation.jpg`` (as Fig. 4: heads moved across, down and diagonally).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from benchmarks.quality_parts.translation import shift_variant
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
from benchmarks.report import build_report, print_report, write_report
from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.data.picture import encode_jpeg
from styleavatar_core.data.sample_clip import make_sample_clip
from styleavatar_core.data.spread import spread_evenly
from styleavatar_core.engine.avatar_renderer import AvatarRenderer
from styleavatar_core.evaluation.baselines import NearestSample
from styleavatar_core.evaluation.comparison import comparison_sheet
from styleavatar_core.evaluation.control import control_fidelity
from styleavatar_core.evaluation.evaluate import held_out_truth
from styleavatar_core.evaluation.translation import ShiftResult, translation_sheet
from styleavatar_core.networks import get_preset
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.create import DATASET_FOLDER
from styleavatar_core.training.measure import drive_avatar
from styleavatar_core.training.prepare import prepare_dataset
from styleavatar_core.training.reporter import NetworkRenderer
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
_SHIFTED_FRAMES = 5
_SHEETS_FOLDER = Path("out") / "quality"


def main(
    clips: Annotated[list[Path] | None, typer.Option(help="Videos; none makes a sample.")] = None,
    preset: Annotated[str, typer.Option(help="Network preset.")] = "lite",
    minutes: Annotated[float, typer.Option(help="Training time per clip and variant.")] = 25.0,
    steps: Annotated[int | None, typer.Option(help="Equal steps instead of equal time.")] = None,
    variants: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Of {', '.join((*TRAINED_VARIANTS, *BASELINES))}; or {', '.join(VARIANT_SETS)}."
        ),
    ] = None,
    driver: Annotated[Path | None, typer.Option(help="Video of another person.")] = None,
    lpips_weights: Annotated[Path | None, typer.Option(help="TorchScript, for LPIPS.")] = None,
    fid_weights: Annotated[Path | None, typer.Option(help="TorchScript, for FID.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Keeps avatars here, and sheets.")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Report file.")] = None,
    quick: Annotated[bool, typer.Option(help="Cheap values, never quoted.")] = False,
) -> None:
    wanted = [VARIANT_SETS.get(name, [name]) for name in variants or DEFAULT_VARIANTS]
    chosen = list(dict.fromkeys(chain.from_iterable(wanted)))
    if unknown := set(chosen) - {*TRAINED_VARIANTS, *BASELINES}:
        raise typer.BadParameter(f"unknown: {', '.join(sorted(unknown))}", param_hint="--variants")
    options = Options(
        preset="nano" if quick else preset,
        config=TrainConfig(
            minutes=minutes,
            step_count=_QUICK_STEPS if quick else steps,
            plateau_gain_db=None,  # the same minutes for every row
        ),
        variants=chosen,
        driver=driver,
        frame_limit=4 if quick else None,
        shifted_frames=1 if quick else _SHIFTED_FRAMES,
        lpips_weights=lpips_weights,
        fid_weights=fid_weights,
    )
    with TemporaryDirectory() as temporary:
        work = folder or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        if not clips:
            clips = [make_sample_clip(work / "sample.mp4", 6.0, size_px=256, seed=0).path]
        figures: dict[str, float | None] = {}
        for clip in clips:
            sheets = (folder or _SHEETS_FOLDER) / clip.stem
            measured = measure_clip(clip, work / clip.stem, sheets, options)
            figures |= {f"{clip.stem}.{name}": value for name, value in measured.items()}
    described = {"preset": options.preset, "minutes": minutes, "steps": steps, "quick": quick}
    described |= {"variants": chosen}
    report = build_report("quality", figures, described)
    print_report(report)
    if json_path is not None:
        write_report(report, json_path)


def measure_clip(clip: Path, work: Path, sheets: Path, options: Options) -> dict[str, float]:
    """Trains every variant on a clip, with equal time, and measures and pictures them."""
    dataset = prepare_dataset(clip, work / DATASET_FOLDER, get_preset(options.preset))
    figures: dict[str, float] = {}
    evaluated: dict[str, float] = {}
    renders: dict[str, Render] = {}
    translations: list[list[ShiftResult]] = []
    for variant in [name for name in options.variants if name in TRAINED_VARIANTS] or ["full"]:
        networks, minutes = train_variant(clip, dataset, work, variant, options)
        renders[variant] = NetworkRenderer(dataset, networks)
        bundle = work / "avatar" if variant == "full" else None
        evaluated = evaluate_variant(dataset, renders[variant], bundle, options)
        if variant in options.variants:
            figures |= _named(variant, evaluated, "")
            figures[f"{variant}.train_minutes"] = minutes
        if variant in ("full", "no_sliding_window"):
            count = options.shifted_frames
            shown, shifted = shift_variant(dataset, networks, bundle, count)
            translations += shown
            figures |= {f"{variant}.{name}": value for name, value in shifted.items()}
    for variant in [name for name in options.variants if name in BASELINES]:
        figures |= _named(variant, evaluated, BASELINES[variant])
    sheets.mkdir(parents=True, exist_ok=True)
    (sheets / "ablations.jpg").write_bytes(encode_jpeg(ablation_sheet(dataset, renders)))
    if translations:
        (sheets / "translation.jpg").write_bytes(encode_jpeg(translation_sheet(translations)))
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
    typer.run(main)
