# SPDX-License-Identifier: Apache-2.0
"""The course of a training for TensorBoard, from the events that everybody else is told too.

tensorboardX knows TensorBoard's messages. Its own writer is a thread behind a bounded queue that
dies at the first write that fails, after which the queue fills up and the training waits for ever:
so records are written here, each when it is told.
"""

from __future__ import annotations

import importlib.util
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from styleavatar_core.data.picture import decode_jpeg
from styleavatar_core.errors import AssetError
from styleavatar_core.training.record.side_files import SideFiles, append_whole
from styleavatar_core.types import Progress

TENSORBOARD_FOLDER = "tensorboard"
_PACKAGE = "tensorboardX"  # knows TensorBoard's files and needs nothing of it
_FILE_VERSION = "brain.Event:2"
_RGB = 3  # colour space of a picture


@contextmanager
def tensorboard_log(folder: Path) -> Iterator[Callable[[Progress], None]]:
    """Yields a callable for ``on_progress`` that writes losses, watched frames and their PSNR.

    What cannot be written, as on a full disk, is left out; the training goes on.

    Args:
        folder: Takes the file: ``tensorboard --logdir FOLDER`` shows it.

    Raises:
        AssetError: The package that knows the format is not installed.
    """
    if importlib.util.find_spec(_PACKAGE) is None:
        raise AssetError(
            f"TensorBoard's files are written by the package {_PACKAGE}, which is not installed; "
            "install styleavatar[tensorboard], or leave out --tensorboard"
        )
    path = folder / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
    files = SideFiles()
    last_step: int | None = None

    def write(event: Progress) -> None:
        nonlocal last_step
        if event.stage != "training" or event.step is None:
            return
        goes_back = last_step is None or event.step < last_step
        with files.going_on_without(TENSORBOARD_FOLDER):
            folder.mkdir(parents=True, exist_ok=True)
            records = _start(event.step) if goes_back else b""
            append_whole(path, records + _figures(event))
            last_step = event.step

    yield write


def _start(step: int) -> bytes:
    """Returns what makes TensorBoard forget this step and later ones: they were gone back from."""
    from tensorboardX.proto.event_pb2 import SessionLog

    start = SessionLog(status=SessionLog.START)
    return _record(0, file_version=_FILE_VERSION) + _record(step, session_log=start)


def _figures(event: Progress) -> bytes:
    from tensorboardX.proto.summary_pb2 import Summary

    groups = {name: "judge" if name == "judge_lead" else "loss" for name in event.losses}
    values = {f"{groups[name]}/{name}": value for name, value in event.losses.items()}
    if event.psnr_db is not None:
        values["watched/psnr_db"] = event.psnr_db
    told = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    if event.preview_jpeg is not None:
        height, width, _ = decode_jpeg(event.preview_jpeg).shape
        picture = Summary.Image(
            height=height, width=width, colorspace=_RGB, encoded_image_string=event.preview_jpeg
        )
        told.append(Summary.Value(tag="watched/preview", image=picture))
    return _record(event.step, summary=Summary(value=told))


def _record(step: int | None, **content: Any) -> bytes:
    """Returns an event as the file has it: length, its checksum, event, its checksum."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    data = Event(wall_time=time.time(), step=step, **content).SerializeToString()
    length = struct.pack("<Q", len(data))
    checksums = (struct.pack("<I", masked_crc32c(part)) for part in (length, data))
    return length + next(checksums) + data + next(checksums)
