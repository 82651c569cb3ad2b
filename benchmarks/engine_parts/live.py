# SPDX-License-Identifier: Apache-2.0
"""A driver's frames to tracking to rendering through gRPC, as in a call, all on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from styleavatar_client.drive_report import DriveReport
from styleavatar_client.frames import paced
from styleavatar_client.streaming import AvatarStreams, DriverFrame

from benchmarks.engine_parts.case import Figures
from benchmarks.streaming_parts.service import RunningService, rendering_service, running_service
from styleavatar_core.data.video import read_frames
from styleavatar_core.sample.clip import make_sample_clip
from tests.fakes.nano_bundle import write_nano_bundle

_AVATAR = "live"
_CAMERA_FPS = 25
_WARM_UP_COUNT = 30  # the avatar is opened, backends are measured, the driver's face is learned
_CLIP_SIZE_PX = 512


def live_figures(
    preset: str,
    seconds: float,
    clip: Path | None = None,
    backend: str = "auto",
) -> Figures:
    """Drives an untrained avatar with a clip, as fast as it goes and then as a camera does.

    Args:
        preset: Name of the preset.
        seconds: Of the clip that are driven each time.
        clip: The driver; the sample clip if there is none.
        backend: What renders; ``auto`` measures which is fastest, beside whatever else runs.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        if clip is None:
            clip = make_sample_clip(folder / "clip.mp4", seconds, size_px=_CLIP_SIZE_PX).path
        frames = list(islice(_frames(clip), round(seconds * _CAMERA_FPS)))
        write_nano_bundle(folder / "avatars" / _AVATAR, preset=preset)
        with (
            rendering_service(folder, backend=backend) as rendering,
            running_service("tracking", folder, rendering_address=rendering.address) as tracking,
            AvatarStreams(tracking.address) as streams,
        ):
            _drive(streams, frames[:_WARM_UP_COUNT], every_frame=True)
            rendering.wait_for_standby()  # its start would take time from the frames
            return _measure(preset, streams, frames, {"tracking": tracking, "rendering": rendering})


def _measure(
    preset: str,
    streams: AvatarStreams,
    frames: list[DriverFrame],
    services: dict[str, RunningService],
) -> Figures:
    """Drives with every frame answered, then live; processor time is of the former."""
    before = {name: _cpu_s(service) for name, service in services.items()}
    own_s = time.process_time()
    every = _drive(streams, frames, every_frame=True).figures()
    spent_s = {name: _cpu_s(service) - before[name] for name, service in services.items()}
    spent_s["caller"] = time.process_time() - own_s
    live = _drive(streams, paced(frames)).figures()
    prefix = f"{preset}.live"
    return {
        f"{prefix}.frames_per_second": every.get("frames_per_second"),
        **{f"{prefix}.{name}_core_ms": 1e3 * s / len(frames) for name, s in spent_s.items()},
        f"{prefix}.latency_ms_p50": live["latency_ms_p50"],
        f"{prefix}.latency_ms_p99": live["latency_ms_p99"],
        f"{prefix}.dropped_percent": 100 * live["dropped_count"] / len(frames),
        f"{prefix}.failed": float(every["failed_count"] + live["failed_count"]),
    }


def _drive(
    streams: AvatarStreams, frames: Iterable[DriverFrame], *, every_frame: bool = False
) -> DriveReport:
    report = DriveReport()
    for answer in streams.drive(_AVATAR, frames, every_frame=every_frame):
        report.add(answer)
    return report


def _frames(clip: Path) -> Iterator[DriverFrame]:
    for index, _, image in read_frames(clip):
        yield DriverFrame(index, index / _CAMERA_FPS, image)


def _cpu_s(service: RunningService) -> float:
    """Returns the processor time that a service's processes have taken."""
    family: list[psutil.Process] = [service.process, *service.workers()]
    return float(sum(sum(process.cpu_times()[:2]) for process in family))
