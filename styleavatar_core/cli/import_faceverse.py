# SPDX-License-Identifier: Apache-2.0
"""``styleavatar import-faceverse``: a FaceVerse file as a face model of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from styleavatar_core.errors import InvalidInputError


def import_faceverse(
    file: Annotated[Path, typer.Argument(help="FaceVerse v2, v3 or v4 (.npy).")],
    out: Annotated[Path, typer.Argument(help="Face model to write (.safetensors).")],
) -> None:
    """Turn a FaceVerse file into a face model for --face-model. Nothing in it is executed."""
    from styleavatar_core.face3d.faceverse import convert_faceverse

    if out.suffix != ".safetensors":
        raise InvalidInputError(f"{out.name} must end in .safetensors")
    model = convert_faceverse(file)
    out.parent.mkdir(parents=True, exist_ok=True)
    model.save(out)
    typer.echo(
        f"{out}: {model.model_id}, {len(model.mean_shape)} vertices, "
        f"{len(model.expression_names)} expressions"
    )
    typer.echo("FaceVerse is its authors' and not for commercial use: their terms hold for it.")
