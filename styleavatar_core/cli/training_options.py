# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

SEED_LIMIT = 2**32 - 1  # torch takes what every step makes of it, too

PresetOption = Annotated[
    str, typer.Option(help="nano (128 px), lite (256), hd (512), paper or paper+ (1024).")
]
MinutesOption = Annotated[float, typer.Option(min=0.01, help="Time to train, minutes.")]
BatchSizeOption = Annotated[
    int | None, typer.Option(min=1, help="Pictures per step; fewer need less memory.")
]
PrecisionOption = Annotated[
    Literal["auto", "fp32", "bf16"],
    typer.Option(help="Of the forward passes; auto is bf16 on GPUs that have it, else fp32."),
]
SeedOption = Annotated[int, typer.Option(min=0, max=SEED_LIMIT, help="Seed of everything random.")]
TensorboardOption = Annotated[
    bool, typer.Option(help="Write OUT/training/tensorboard for TensorBoard.")
]
Vgg19Option = Annotated[
    Path | None, typer.Option(help="VGG19 weights for the perceptual loss: .pth or safetensors.")
]
