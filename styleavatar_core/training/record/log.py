# SPDX-License-Identifier: Apache-2.0
"""``training.jsonl``: a row of figures about once a second, of one training from its first step.

Steps that are gone back from and done again have rows of both; ``elapsed_s`` always goes on.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

LOG_NAME = "training.jsonl"


def read_log(path: Path) -> list[dict[str, Any]]:
    """Returns the rows; none where there is no file. Half a row, as a crash leaves it, is none."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [row for row in map(_row, lines) if row is not None]


def cut_log(path: Path, step: int) -> None:
    """Cuts off what was written after a checkpoint, so that no step is told twice.

    Args:
        path: The log, if there is one.
        step: Of the checkpoint; 0 cuts off all that another training left.

    Raises:
        OSError: It cannot be cut.
    """
    if not path.exists():
        return
    length, kept = 0, 0
    for line in path.read_bytes().splitlines(keepends=True):
        length += len(line)
        row = _row(line)
        # Rows of steps that a training went back from stay, where later ones lead up to this step.
        if row is not None and line.endswith(b"\n") and row.get("step", math.inf) <= step:
            kept = length
    os.truncate(path, kept)


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
