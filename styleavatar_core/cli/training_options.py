# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from styleavatar_core.training.config import TrainConfig

SEED_LIMIT = 2**32 - 1  # torch takes what every step makes of it, too
_BEGUN = ", or as OUT was begun"
YES_OR_BEGUN = "yes" + _BEGUN

PresetOption = Annotated[
    str, typer.Option(help="nano (128 px), lite (256), hd (512), paper or paper+ (1024).")
]
MinutesOption = Annotated[
    float | None,
    typer.Option(min=0.01, help="Time to train, minutes.", show_default="20, pretrain 60" + _BEGUN),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Pictures per step; fewer need less memory.", show_default="2" + _BEGUN
    ),
]
PrecisionOption = Annotated[
    Literal["auto", "fp32", "bf16"] | None,
    typer.Option(
        help="Of the forward passes; auto is bf16 on GPUs that have it, else fp32.",
        show_default="auto" + _BEGUN,
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        min=0, max=SEED_LIMIT, help="Seed of everything random.", show_default="0" + _BEGUN
    ),
]
TensorboardOption = Annotated[
    bool, typer.Option(help="Write OUT/training/tensorboard for TensorBoard.")
]
Vgg19Option = Annotated[
    Path | None, typer.Option(help="VGG19 weights for the perceptual loss: .pth or safetensors.")
]


def chosen_settings(out: Path, usual: TrainConfig, **given: Any) -> TrainConfig:
    """Returns how to train: what is given, else what the training in OUT was begun with.

    Args:
        out: Work folder of the command.
        usual: For a new training.
        given: Fields of ``TrainConfig``; None where a person gave none.

    Raises:
        AssetError: The checkpoint in OUT cannot be read.
    """
    from styleavatar_core.training.record.checkpoint import checkpoint_in, read_settings

    begun = read_settings(checkpoint_in(out)) or usual
    if given.get("minutes") is not None:
        begun = replace(begun, step_count=None)  # which a program may have counted
    return replace(begun, **{name: value for name, value in given.items() if value is not None})
