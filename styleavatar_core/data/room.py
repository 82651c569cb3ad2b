# SPDX-License-Identifier: Apache-2.0
"""Room on a disk: taken before it is written to, and told when it does not suffice."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from styleavatar_core.errors import TrainingError


def take_blocks(path: Path) -> None:
    """Gives a file that was made longer than what is in it all its blocks.

    Without, a disk that becomes full ends the process at the first write to the mapped file: the
    system has no other way to say so.

    Raises:
        OSError: The disk has no room.
    """
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def cannot_write(what: str, folder: Path, error: Exception) -> TrainingError:
    """Returns what a person is told when something cannot be written.

    Args:
        what: Name of what it is, with its size where that is known.
        folder: Where.
        error: Why.
    """
    free = shutil.disk_usage(folder).free / 1e9
    return TrainingError(
        f"{what} cannot be written in {folder}, where {free:.2f} GB are free: {error}; make room"
        " and run the same again",
        reason="NOT_WRITTEN",
    )
