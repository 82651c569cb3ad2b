# SPDX-License-Identifier: Apache-2.0
"""``styleavatar export``: an avatar as one ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from styleavatar_core.avatar.bundle_path import beside_bundle, find_bundle


def export(
    avatar: Annotated[Path, typer.Argument(help="Avatar bundle, or the folder of `train`.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="ONNX file.", show_default="beside the bundle"),
    ] = None,
    batch: Annotated[int, typer.Option(help="Samples per call: 1, 2, 4 or 8.")] = 1,
) -> None:
    """Export an avatar to ONNX and compare it with torch."""
    from styleavatar_core.export.onnx import export_onnx

    bundle = find_bundle(avatar)
    path = output or beside_bundle(bundle, ".onnx")
    parity = export_onnx(bundle, path, batch_size=batch)
    typer.echo(
        f"{path}: {path.stat().st_size / 2**20:.1f} MiB; at most {parity.image_error} of 255 "
        f"levels from torch's picture, {parity.mask_error} from its mask"
    )
