# SPDX-License-Identifier: Apache-2.0
"""``styleavatar sample-clip``: a talking portrait that may be handed out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from styleavatar_core.cli.progress import progress_bars
from styleavatar_core.cli.training_options import SEED_LIMIT


def sample_clip(
    output: Annotated[Path, typer.Argument(help="The mp4 to write; its truth goes beside it.")],
    seconds: Annotated[float, typer.Option(min=1.0, help="Length.")] = 30.0,
    size: Annotated[int, typer.Option(min=64, help="Side of the square frames, pixels.")] = 512,
    seed: Annotated[int, typer.Option(min=0, max=SEED_LIMIT, help="Of the motion.")] = 0,
) -> None:
    """Animate a public-domain NASA portrait: real pixels with known face parameters."""
    from styleavatar_core.sample.clip import SAMPLE_ORIGIN, make_sample_clip

    with progress_bars() as show:
        clip = make_sample_clip(output, seconds, size_px=size, seed=seed, on_progress=show)
    typer.echo(f"{clip.path}: {len(clip.parameters)} frames of {clip.size_px} px. {SAMPLE_ORIGIN}.")
