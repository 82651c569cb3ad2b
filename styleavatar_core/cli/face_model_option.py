# SPDX-License-Identifier: Apache-2.0
"""The option ``--face-model`` of the commands that track."""

from __future__ import annotations

from typing import Annotated

import typer

FaceModelOption = Annotated[
    str,
    typer.Option(
        help="Id of a face model that import-faceverse added, or its .safetensors file; else the "
        "built-in one."
    ),
]
