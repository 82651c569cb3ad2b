# SPDX-License-Identifier: Apache-2.0
"""``styleavatar evaluate``: an avatar against the held-out fifth of what it learned from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from styleavatar_core.avatar.bundle_path import beside_bundle, find_bundle
from styleavatar_core.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from styleavatar_core.data.dataset import AvatarDataset
    from styleavatar_core.engine.avatar_renderer import AvatarRenderer
    from styleavatar_core.evaluation.evaluate import HeldOutEvaluation
    from styleavatar_core.evaluation.learned_metrics import LearnedMetrics
    from styleavatar_core.evaluation.page import Driven, ReportContent
    from styleavatar_core.types import ByteArray, FaceParameters

_NO_WEIGHTS = "no weights given (--{name}-weights)"


def evaluate(
    avatar: Annotated[
        Path, typer.Argument(help="Folder that `train` wrote; with --driver a bundle, too.")
    ],
    backend: Annotated[
        str, typer.Option(help="auto, torch, onnxruntime, openvino or tensorrt.")
    ] = "auto",
    driver: Annotated[
        Path | None,
        typer.Option(help="A video of another person: measures how well the avatar follows it."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most frames to look at.")] = 240,
    lpips_weights: Annotated[
        Path | None, typer.Option(help="TorchScript network for LPIPS (vgg16.pt).")
    ] = None,
    fid_weights: Annotated[
        Path | None, typer.Option(help="TorchScript network for FID (inception-2015-12-05.pt).")
    ] = None,
    json_path: Annotated[
        Path | None,
        typer.Option(
            "--json",
            help="Figures.",
            show_default="AVATAR/evaluation.json or control.json; beside a bundle",
        ),
    ] = None,
    html_path: Annotated[
        Path | None, typer.Option("--html", help="Report.", show_default="AVATAR/evaluation.html")
    ] = None,
) -> None:
    """Measure an avatar on held-out frames, and write a report to look at."""
    from styleavatar_core.data.dataset import AvatarDataset
    from styleavatar_core.engine.avatar_renderer import AvatarRenderer
    from styleavatar_core.evaluation.belonging import require_own_dataset
    from styleavatar_core.evaluation.learned_metrics import LearnedMetrics
    from styleavatar_core.evaluation.page import write_page

    bundle = find_bundle(avatar)
    has_dataset = (avatar / "dataset" / "dataset.json").exists()
    if not has_dataset and driver is None:
        raise NotFoundError(
            f"there is no dataset in {avatar}; give the folder that `styleavatar train` wrote, or"
            " with --driver a video of another person"
        )
    of_dataset = {
        "--html": html_path,
        "--lpips-weights": lpips_weights,
        "--fid-weights": fid_weights,
    }
    given = [name for name, path in of_dataset.items() if path is not None]
    if given and not has_dataset:
        raise InvalidInputError(
            f"there is no dataset in {avatar}; {', '.join(given)}: only with the folder that "
            "`styleavatar train` wrote"
        )
    learned = LearnedMetrics(lpips_weights=lpips_weights, fid_weights=fid_weights)
    page = html_path or avatar / "evaluation.html"
    path = json_path or _figures_path(avatar, bundle, has_dataset=has_dataset)
    figures: dict[str, float] = {}
    content: ReportContent | None = None
    renderer = AvatarRenderer(bundle, backend=backend)
    try:
        dataset = AvatarDataset(avatar / "dataset") if has_dataset else None
        if dataset is not None:
            require_own_dataset(renderer.manifest, dataset.info, f"{bundle}, {dataset.folder}")
        driven = [] if driver is None else [_drive(renderer, driver, limit, dataset)]
        figures = dict(driven[0].figures) if driven else {}
        if dataset is not None:
            own, content = _evaluate_own(renderer, bundle, avatar, dataset, limit, learned, driven)
            figures = {**own, **{f"driver.{name}": value for name, value in figures.items()}}
    finally:
        renderer.close()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_measured(figures), indent=2) + "\n")
    console = Console()
    print_figures(path, console)
    if content is not None:
        (avatar / "evaluation.jpg").write_bytes(content.sheet_jpeg)
        write_page(content, page)
        for name in learned.absent:
            console.print(f"{name} not measured: {_NO_WEIGHTS.format(name=name)}")
        console.print(f"Report: [bold]{page}[/bold]")


def print_figures(path: Path, console: Console) -> None:
    """Prints a JSON file of figures as a table."""
    table = Table("figure", "value")
    for name, value in json.loads(path.read_text()).items():
        table.add_row(name, f"{value:.3f}")
    console.print(table)


def _figures_path(avatar: Path, bundle: Path, *, has_dataset: bool) -> Path:
    if has_dataset:
        return avatar / "evaluation.json"
    return beside_bundle(bundle, ".control.json") if bundle == avatar else avatar / "control.json"


def _measured(figures: dict[str, float]) -> dict[str, float]:
    """Leaves out what could not be measured: it is missing, never 0."""
    return {name: value for name, value in figures.items() if np.isfinite(value)}


def _drive(
    renderer: AvatarRenderer, driver: Path, limit: int, dataset: AvatarDataset | None
) -> Driven:
    """Drives the avatar with another person's video and tracks what comes out."""
    from styleavatar_core.data.picture import encode_jpeg
    from styleavatar_core.data.spread import spread_evenly
    from styleavatar_core.evaluation.baselines import nearest_parameters
    from styleavatar_core.evaluation.control import control_fidelity, control_series
    from styleavatar_core.evaluation.evaluate import SHEET_ROWS
    from styleavatar_core.evaluation.page import Driven
    from styleavatar_core.face3d.camera import parameters_in_crop
    from styleavatar_core.training.measure import drive_avatar
    from styleavatar_core.types import CropBox

    frames = drive_avatar(renderer, driver, frame_limit=limit)
    figures = control_fidelity(frames.wanted, frames.seen)
    if dataset is not None:
        crop, train = dataset.info.crop, dataset.train_indices
        local = [parameters_in_crop(dataset.parameters[i], crop) for i in train]
        figures |= nearest_parameters(local, frames.given, CropBox(0.0, 0.0, 1.0))
    sheet = encode_jpeg(np.concatenate(spread_evenly(frames.pictures, SHEET_ROWS)))
    curves = control_series(frames.wanted, frames.seen)
    return Driven(f"driven by {driver.name}", figures, curves, sheet)


def _evaluate_own(
    renderer: AvatarRenderer,
    bundle: Path,
    avatar: Path,
    dataset: AvatarDataset,
    limit: int,
    learned: LearnedMetrics,
    driven: list[Driven],
) -> tuple[dict[str, float], ReportContent]:
    """Measures the avatar on its own video; returns the figures and what the report shows."""
    from styleavatar_core.avatar.bundle import read_bundle
    from styleavatar_core.data.spread import spread_evenly
    from styleavatar_core.evaluation.belonging import teacher_of
    from styleavatar_core.evaluation.closeups import closeups_sheet
    from styleavatar_core.evaluation.control import (
        control_fidelity,
        control_series,
        rotation_error_deg,
    )
    from styleavatar_core.evaluation.evaluate import SHEET_ROWS, evaluate_frames, frames_sheet
    from styleavatar_core.evaluation.page import Driven, ReportContent
    from styleavatar_core.face3d.camera import parameters_in_crop
    from styleavatar_core.tracking.tracker import Tracker
    from styleavatar_core.training.record.checkpoint import TRAINING_FOLDER
    from styleavatar_core.training.record.log import LOG_NAME, read_log

    def local(index: int) -> FaceParameters:
        return parameters_in_crop(dataset.parameters[index], dataset.info.crop)

    def render(index: int) -> tuple[ByteArray, ByteArray]:
        frame = renderer.render(local(index))
        return frame.image, frame.mask

    tracker = Tracker(renderer.manifest.face_model(), filtered=False)
    wanted: list[FaceParameters] = []
    seen: list[FaceParameters] = []

    def look(index: int, image: ByteArray) -> None:
        result = tracker.track(image, dataset.parameters[index].capture_time_s, index)
        if result is not None:
            wanted.append(local(index))
            seen.append(result)

    try:
        evaluation = evaluate_frames(
            dataset, render, frame_limit=limit, learned=learned, on_output=look
        )
    finally:
        tracker.close()
    figures = dict(evaluation.figures)
    if len(seen) >= 2:
        control = control_fidelity(wanted, seen)
        control["rotation_error_deg"] = rotation_error_deg(wanted, seen)
        figures |= {name: value for name, value in control.items() if name != "frame_count"}
        own = Driven("its own held-out frames", control, control_series(wanted, seen))
        driven = [own, *driven]
    shown = spread_evenly(evaluation.indices, SHEET_ROWS)
    sheet = frames_sheet(dataset, render, shown)
    content = ReportContent(
        name=avatar.resolve().name,
        manifest=renderer.manifest,
        evaluation=evaluation,
        absent={name: _NO_WEIGHTS.format(name=name) for name in learned.absent},
        sheet_jpeg=sheet,
        extremes_jpeg=frames_sheet(dataset, render, _extremes(evaluation)),
        closeups_jpeg=closeups_sheet(dataset, render, shown),
        preview_jpeg=read_bundle(bundle, verify=False).preview(),
        training_log=read_log(avatar / TRAINING_FOLDER / LOG_NAME),
        driven=driven,
        teacher=teacher_of(renderer.manifest, dataset.info),
    )
    return figures, content


def _extremes(evaluation: HeldOutEvaluation) -> list[int]:
    """Returns the frames with the best, the middle and the worst PSNR."""
    order = np.argsort(evaluation.series["psnr_db"])[::-1]
    return [evaluation.indices[order[place]] for place in (0, len(order) // 2, -1)]
