# SPDX-License-Identifier: Apache-2.0
"""The course of a training for TensorBoard, from the events that everybody else is told too."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from styleavatar_core.data.picture import decode_jpeg
from styleavatar_core.errors import AssetError
from styleavatar_core.types import Progress

TENSORBOARD_FOLDER = "tensorboard"
_PACKAGE = "tensorboardX"  # writes TensorBoard's files and needs nothing of it


@contextmanager
def tensorboard_log(folder: Path) -> Iterator[Callable[[Progress], None]]:
    """Yields a callable for ``on_progress`` that writes losses, watched frames and their PSNR.

    Args:
        folder: Takes the files: ``tensorboard --logdir FOLDER`` shows them.

    Raises:
        AssetError: The package that writes them is not installed.
    """
    if importlib.util.find_spec(_PACKAGE) is None:
        raise AssetError(
            f"TensorBoard's files are written by the package {_PACKAGE}, which is not installed; "
            "install styleavatar[tensorboard], or leave out --tensorboard"
        )
    from tensorboardX import SummaryWriter

    writer: Any = None

    def write(event: Progress) -> None:
        nonlocal writer
        if event.stage != "training" or event.step is None:
            return
        if writer is None:  # steps of an earlier run after this one were gone back from
            writer = SummaryWriter(str(folder), purge_step=event.step)
        for name, value in event.losses.items():
            group = "judge" if name == "judge_lead" else "loss"
            writer.add_scalar(f"{group}/{name}", value, event.step)
        if event.psnr_db is not None:
            writer.add_scalar("watched/psnr_db", event.psnr_db, event.step)
        if event.preview_jpeg is not None:
            picture = decode_jpeg(event.preview_jpeg)
            writer.add_image("watched/preview", picture, event.step, dataformats="HWC")

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()
