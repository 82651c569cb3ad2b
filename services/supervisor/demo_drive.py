# SPDX-License-Identifier: Apache-2.0
"""Drives the demo's avatar through the services, with frames that its training never saw."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from styleavatar_client.drive_report import DriveReport
from styleavatar_client.frames import paced
from styleavatar_client.streaming import AvatarFrame, AvatarStreams, DriverFrame

from services.supervisor.demo_report import ContactSheet, write_demo_video
from styleavatar_core.data.video import read_frames
from styleavatar_core.types import ByteArray, Progress

# The last fifth of a clip is held out of training.
HELD_OUT_SHARE = 0.2
_MAX_FRAMES = 750


@dataclass(frozen=True, slots=True)
class DriveFigures:
    """What driving through gRPC was like.

    Attributes:
        frames_per_second: Rate with every frame answered, as fast as it goes.
        latency_ms: Percentile name (p50, p95, p99) -> milliseconds, paced as a camera.
        dropped_count: Frames dropped while paced.
        frame_count: Frames in the demo video.
    """

    frames_per_second: float | None
    latency_ms: dict[str, float]
    dropped_count: int
    frame_count: int


def drive_demo(
    tracking_address: str,
    avatar_id: str,
    video: Path,
    video_out: Path,
    *,
    frame_count: int,
    fps: float,
    on_progress: Callable[[Progress], None],
) -> DriveFigures:
    """Drives the avatar with the held-out frames, every one and then live, and films it.

    Args:
        tracking_address: ``host:port`` of the tracking service.
        avatar_id: The avatar, served by the rendering service.
        video: The clip that the avatar was made from.
        video_out: Where driver and avatar are shown beside each other; a contact sheet goes
            into the same folder.
        frame_count: Frames in the clip.
        fps: Its rate.
        on_progress: Told how far it has come.

    Returns:
        Rate and latency.
    """
    first = round(frame_count * (1 - HELD_OUT_SHARE))
    expected = min(frame_count - first, _MAX_FRAMES)
    shown: dict[int, ByteArray] = {}
    # The first answer waits for the avatar to be loaded; that is not what a stream is like.
    with AvatarStreams(tracking_address) as streams:
        few = islice(_held_out(video, first), 3)
        for _ in streams.drive(avatar_id, few, every_frame=True, same_person=True):
            on_progress(Progress("driving", 0.0, "loading the avatar"))
        every = DriveReport()
        drivers = _remembered(_held_out(video, first), shown)
        answers = streams.drive(avatar_id, drivers, every_frame=True, same_person=True)
        pairs = _with_driver(_counted(answers, every, expected, 0.0, on_progress), shown)
        sheet = ContactSheet(expected)
        written = write_demo_video(video_out, pairs, fps, sheet)
        sheet.write(video_out.with_name("contact_sheet.jpg"))
        live = DriveReport()
        answers = streams.drive(avatar_id, paced(_held_out(video, first)), same_person=True)
        for _ in _counted(answers, live, expected, 0.5, on_progress):
            pass
    figures = live.figures()
    return DriveFigures(
        frames_per_second=every.figures().get("frames_per_second"),
        latency_ms={p: figures[f"latency_ms_{p}"] for p in ("p50", "p95", "p99")},
        dropped_count=figures["dropped_count"],
        frame_count=written,
    )


def _held_out(video: Path, first: int) -> Iterator[DriverFrame]:
    for index, time_s, image in read_frames(video):
        if first <= index < first + _MAX_FRAMES:
            yield DriverFrame(index, time_s, image)


def _remembered(
    frames: Iterable[DriverFrame], shown: dict[int, ByteArray]
) -> Iterator[DriverFrame]:
    """Keeps each frame's image until its answer has come; few are under way at a time."""
    for frame in frames:
        shown[frame.frame_index] = frame.image
        yield frame


def _counted(
    answers: Iterable[AvatarFrame],
    report: DriveReport,
    expected: int,
    done_before: float,
    on_progress: Callable[[Progress], None],
) -> Iterator[AvatarFrame]:
    kind = "live" if done_before else "every frame"
    for count, answer in enumerate(answers, start=1):
        report.add(answer)
        done = min(done_before + 0.5 * count / max(expected, 1), 1.0)
        on_progress(Progress("driving", done, kind))
        yield answer
    on_progress(Progress("driving", done_before + 0.5, kind))


def _with_driver(
    answers: Iterable[AvatarFrame], shown: dict[int, ByteArray]
) -> Iterator[tuple[ByteArray, ByteArray]]:
    for answer in answers:
        driver = shown.pop(answer.frame_index)
        if answer.image is not None:
            yield driver, answer.image
