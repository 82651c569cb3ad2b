# SPDX-License-Identifier: Apache-2.0
"""``styleavatar import-official``: a checkpoint of the published code as an avatar bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_official(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of the published code (.pt).")],
    out: Annotated[Path, typer.Argument(help="Bundle to write: a folder, or a name in .zip.")],
    averaged: Annotated[
        bool, typer.Option("--averaged/--last", help="The averaged weights, or those of the end.")
    ] = True,
    consent: Annotated[
        str, typer.Option(help="The agreement of the person shown, in a sentence.")
    ] = "",
    subject: Annotated[str, typer.Option(help="Name of the person shown.")] = "",
    face_model: Annotated[
        str, typer.Option(help="Face model of the renderings that it was trained with.")
    ] = "faceverse-v3",
) -> None:
    """Turn a checkpoint of the published code into a bundle. Nothing in the file is executed."""
    from styleavatar_core.export import official
    from styleavatar_core.provenance.consent import make_consent

    record = make_consent(consent, subject=subject) if consent else None
    official.import_official(
        checkpoint,
        out,
        network="g_ema" if averaged else "i_g",
        consent=record,
        face_model=face_model,
    )
    typer.echo(f"Avatar: {out} (driven by renderings of {face_model})")
    if record is None:
        typer.echo("No consent was recorded: have that of the person shown before you use it.")
