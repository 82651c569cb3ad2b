# SPDX-License-Identifier: Apache-2.0
"""``styleavatar evaluate``: an avatar against the held-out fifth of its own video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from styleavatar_core.cli.bundle_path import find_bundle
from styleavatar_core.errors import NotFoundError


def evaluate(
    avatar: Annotated[Path, typer.Argument(help="Folder that `train` wrote.")],
    backend: Annotated[str, typer.Option(help="auto, torch or onnxruntime.")] = "auto",
    driver: Annotated[
        Path | None,
        typer.Option(help="A video of another person: measures how well the avatar follows it."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most frames to look at.")] = 240,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Also write the figures to this file.")
    ] = None,
) -> None:
    """Measure an avatar with its engine: PSNR, SSIM and sharpness on held-out frames."""
    from styleavatar_core.training.measure import measure_avatar, measure_control

    bundle = find_bundle(avatar)
    if driver is not None:
        figures = measure_control(bundle, driver, backend=backend, frame_limit=limit)
    else:
        dataset = avatar / "dataset"
        if not (dataset / "dataset.json").exists():
            raise NotFoundError(
                f"there is no dataset in {avatar}; give the folder that `styleavatar train` wrote"
            )
        sheet = avatar / "evaluation.jpg"
        figures = measure_avatar(
            bundle, dataset, backend=backend, frame_limit=limit, sheet_path=sheet
        )
    path = json_path or avatar / ("control.json" if driver else "evaluation.json")
    path.write_text(json.dumps(figures, indent=2) + "\n")
    print_figures(path, Console())


def print_figures(path: Path, console: Console) -> None:
    """Prints a JSON file of figures as a table."""
    table = Table("figure", "value")
    for name, value in json.loads(path.read_text()).items():
        table.add_row(name, f"{value:.3f}")
    console.print(table)
