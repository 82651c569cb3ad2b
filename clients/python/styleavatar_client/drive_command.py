# SPDX-License-Identifier: Apache-2.0
"""``styleavatar drive``: a video drives an avatar through the services."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from styleavatar_client.connection import Credentials
from styleavatar_client.drive_report import DriveReport
from styleavatar_client.errors import ClientError
from styleavatar_client.frames import AvatarFrame, ByteArray, DriverFrame, paced
from styleavatar_client.rest import DEFAULT_GATEWAY
from styleavatar_client.streaming import AvatarStreams

if TYPE_CHECKING:
    from styleavatar_core.data.video_writer import VideoWriter

# Answers that wait to be written: a second of them, 100 MB at 1024 pixels.
WAITING_LIMIT = 32
_LIST_COMMAND = f"curl {DEFAULT_GATEWAY}/v1/avatars (or your gateway's address)"
_LABEL = "Synthetic: an avatar made by StyleAvatar, no camera saw this"


class DriverKind(StrEnum):
    """Who drives."""

    SAME = "same"
    OTHER = "other"


def drive(
    avatar: Annotated[str, typer.Option(help="Id of the avatar.")],
    video: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="Video file of the driver.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            dir_okay=False,
            help="Write the pictures to this MP4 file; a dropped frame repeats the one before.",
        ),
    ] = None,
    every_frame: Annotated[
        bool,
        typer.Option(
            "--every-frame",
            help="Answer every frame, at whatever rate. Without it the video plays at its own "
            "rate, as a camera would, and frames that come too fast are dropped.",
        ),
    ] = False,
    driver: Annotated[
        DriverKind,
        typer.Option(
            help="same: the avatar's person, filmed as in the training video; other: anyone."
        ),
    ] = DriverKind.OTHER,
    tracking: Annotated[
        str, typer.Option(help="Address of the tracking service.", envvar="STYLEAVATAR_TRACKING")
    ] = "127.0.0.1:50051",
    api_key: Annotated[
        str, typer.Option(help="API key, where one is asked for.", envvar="STYLEAVATAR_API_KEY")
    ] = "",
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Authority of the service's certificate: use TLS."
        ),
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the figures as JSON instead of sentences.")
    ] = False,
) -> None:
    """Drive an avatar with a video through the running services, and say how fast it was."""
    from styleavatar_core.data.video import probe  # decoding is needed by this command alone

    info = probe(video, min_duration_s=0.0)
    report = DriveReport()
    frames = _frames(video) if every_frame else paced(_frames(video))
    console = Console(stderr=True)
    try:
        credentials = Credentials(api_key=api_key, tls_ca=tls_ca)
        with (
            AvatarStreams(tracking, credentials=credentials) as streams,
            Recorder(output, info.fps) as recorder,
        ):
            answers = streams.drive(
                avatar, frames, every_frame=every_frame, same_person=driver is DriverKind.SAME
            )
            for answer in _with_progress(answers, info.frame_count, console):
                report.add(answer)
                recorder.add(answer)
    except ClientError as error:
        advice = f" Type: {_LIST_COMMAND}" if error.reason == "AVATAR_NOT_FOUND" else ""
        typer.secho(f"styleavatar drive: {error}{advice}", fg="red", err=True)
        raise typer.Exit(2) from error
    if json_output:
        typer.echo(json.dumps({**report.figures(), "synthetic": True}))
        return
    for line in report.lines():
        typer.echo(line)
    if output is not None:
        typer.echo(f"wrote {output} (synthetic: no camera saw these pictures)")


def _frames(video: Path) -> Iterator[DriverFrame]:
    from styleavatar_core.data.video import read_frames

    for frame_index, time_s, image in read_frames(video):
        yield DriverFrame(frame_index, time_s, image)


def _with_progress(
    answers: Iterator[AvatarFrame], frame_count: int, console: Console
) -> Iterator[AvatarFrame]:
    columns = (
        TextColumn("driving"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("driving", total=frame_count or None)
        for answer in answers:
            progress.update(task, completed=answer.frame_index + 1)
            yield answer


class Recorder:
    """Writes a film as long as the driver's clip to a file, if there is one.

    For a frame without a picture stands the last one before it, and at the beginning the first. A
    thread writes: who reads a live stream must not wait for encoder and disk.
    """

    def __init__(self, path: Path | None, fps: float) -> None:
        """Opens the file when the first picture comes.

        Args:
            path: The MP4 file; None writes nothing.
            fps: Rate of the clip.
        """
        self._path = path
        self._fps = fps
        self._writer: VideoWriter | None = None
        self._last: ByteArray | None = None
        self._frame_count = 0  # in the film so far
        self._waiting: queue.Queue[AvatarFrame | None] = queue.Queue(WAITING_LIMIT)
        self._error: Exception | None = None
        self._writing = threading.Thread(target=self._write_all, name="film", daemon=True)

    def __enter__(self) -> Recorder:
        self._writing.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._waiting.put(None)
        self._writing.join()
        if kind is None and self._error is not None:
            raise self._error

    def add(self, answer: AvatarFrame) -> None:
        """Has the answer's picture written at its place in the film; raises what failed there."""
        if self._error is not None:
            raise self._error
        if self._path is not None:
            self._waiting.put(answer)

    def _write_all(self) -> None:
        """Writes until the end; after an error it only makes room."""
        try:
            while (answer := self._waiting.get()) is not None:
                self._write(answer)
            if self._writer is not None:
                self._writer.close()
        except Exception as error:  # raised where the caller is
            self._error = error
            if answer is not None and self._writer is not None:
                with contextlib.suppress(Exception):  # so that what was written can be played
                    self._writer.close()
            while answer is not None:
                answer = self._waiting.get()

    def _write(self, answer: AvatarFrame) -> None:
        picture = self._last if answer.image is None else answer.image
        if self._path is None or picture is None:
            return
        if self._writer is None:
            from styleavatar_core.data.video_writer import VideoWriter

            height, width = picture.shape[:2]
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = VideoWriter(self._path, self._fps, width, height, note=_LABEL)
        before = picture if self._last is None else self._last
        for _ in range(self._frame_count, answer.frame_index):  # dropped, or lost with a node
            self._writer.write(before)
        self._writer.write(picture)
        self._frame_count = answer.frame_index + 1
        self._last = picture
