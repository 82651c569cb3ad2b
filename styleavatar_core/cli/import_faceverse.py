# SPDX-License-Identifier: Apache-2.0
"""``styleavatar import-faceverse``: a FaceVerse file as a face model of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from styleavatar_core.errors import InvalidInputError


def import_faceverse(
    file: Annotated[Path, typer.Argument(help="FaceVerse v2, v3 or v4 (.npy).")],
    out: Annotated[
        Path | None,
        typer.Argument(help="Face model to write (.safetensors) instead of adding it by its id."),
    ] = None,
) -> None:
    """Turn a FaceVerse file into a face model for --face-model. Nothing in it is executed."""
    from styleavatar_core.face3d.faceverse import convert_faceverse
    from styleavatar_core.face3d.library import add_face_model, models_folder

    if out is not None and out.suffix != ".safetensors":
        raise InvalidInputError(f"{out.name} must end in .safetensors")
    model = convert_faceverse(file)
    if out is None:
        add_face_model(model)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        model.save(out)
    typer.echo(
        f"{out or models_folder()}: {model.model_id}, {len(model.mean_shape)} vertices, "
        f"{len(model.expression_names)} expressions; use --face-model {out or model.model_id}"
    )
    typer.echo("FaceVerse is its authors' and not for commercial use: their terms hold for it.")
