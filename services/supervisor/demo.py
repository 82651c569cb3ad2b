# SPDX-License-Identifier: Apache-2.0
"""``styleavatar demo``: a video in, a live avatar out, through our own services, as you watch."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from styleavatar_client.errors import ClientError

from services.supervisor.commands import table_of
from services.supervisor.demo_drive import DriveFigures, drive_demo
from services.supervisor.demo_input import SAMPLE_SECONDS, DemoInput, make_sample, users_video
from services.supervisor.demo_report import plot_training_curve, write_markdown
from services.supervisor.demo_training import TrainingRecord, train_demo
from services.supervisor.settings import SupervisorSettings
from services.supervisor.supervisor import Supervisor
from styleavatar_core.cli.progress import progress_bars
from styleavatar_core.data.video import VideoInfo, probe
from styleavatar_core.errors import ConflictError, StyleAvatarError
from styleavatar_core.evaluation.figures import build_report, print_report, write_report
from styleavatar_core.types import Progress

_READY_LIMIT_S = 180.0


def demo(
    video: Annotated[
        Path | None,
        typer.Argument(help="Portrait video of one person; without it the sample clip is made."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("out"),
    preset: Annotated[
        str, typer.Option(help="nano (128 pixels), lite (256) or hd (512).")
    ] = "nano",
    minutes: Annotated[float, typer.Option(help="Minutes of training.", min=0.01)] = 5.0,
    consent: Annotated[
        str | None,
        typer.Option(help="Statement of consent of the person shown in VIDEO, which needs one."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="Length of the sample clip.")] = SAMPLE_SECONDS,
    exit_when_done: Annotated[
        bool, typer.Option("--exit", help="End when done instead of going on serving.")
    ] = False,
) -> None:
    """Make an avatar from a video and drive it live, through the services, as you watch.

    Writes demo.mp4 (driver beside avatar), contact_sheet.jpg, training_curve.png,
    report.md and report.json, then keeps serving until Ctrl-C.
    """
    console = Console()
    # SIGTERM ends the demo as Ctrl-C does: all processes are stopped on the way out.
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        options = {"preset": preset, "minutes": minutes}
        run_demo(
            video, out, options, consent=consent, seconds=seconds, console=console,
            keep_serving=not exit_when_done,
        )  # fmt: skip
    except KeyboardInterrupt:
        console.print("Ended.")
        raise typer.Exit(130) from None
    except (StyleAvatarError, ClientError) as error:
        sys.stderr.write(f"styleavatar demo: {error}\n")
        raise typer.Exit(2) from error
    finally:
        signal.signal(signal.SIGTERM, previous)


def run_demo(
    video: Path | None,
    out: Path,
    options: dict[str, Any],
    *,
    consent: str | None,
    seconds: float,
    console: Console,
    keep_serving: bool,
) -> dict[str, Any]:
    """Runs the whole demo.

    Args:
        video: The user's video, or None for the sample clip.
        out: Folder of the results.
        options: ``preset`` and ``minutes``.
        consent: Statement for the user's video.
        seconds: Length of the sample clip.
        console: Where progress is shown.
        keep_serving: Whether to serve until interrupted.

    Returns:
        The report, as written to report.json.
    """
    started_s = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as serving:
        with progress_bars(console) as show:
            given = (
                make_sample(out, seconds, show) if video is None else users_video(video, consent)
            )
            info = probe(given.video)
            console.print(f"Video: {given.source}.\nConsent: {given.statement}", highlight=False)
            show(Progress("services", 0.0, f"starting, logs in {out / 'logs'}"))
            supervisor = serving.enter_context(_serving(out))
            show(Progress("services", 1.0, "ready"))
            record = train_demo(supervisor.endpoints.gateway_url, given, options, show)
            drive = drive_demo(
                supervisor.endpoints.tracking_address,
                record.avatar_id,
                given.video,
                out / "demo.mp4",
                frame_count=info.frame_count,
                fps=info.fps,
                on_progress=show,
            )
        minutes = (time.monotonic() - started_s) / 60
        report = _report(record, drive, options | {"video": given.video.name}, minutes)
        _write(out, report, record, drive, given, info)
        print_report(report, console)
        console.print(
            f"Written to {out}: demo.mp4, contact_sheet.jpg, training_curve.png, report.md, "
            "report.json",
            soft_wrap=True,
        )
        if keep_serving:
            _serve_on(supervisor, record.avatar_id, given.video, console)
    return report


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _serving(out: Path) -> Iterator[Supervisor]:
    """Starts the services, on the usual ports if they are free."""
    values: dict[str, Any] = {"data_folder": out / "data", "log_folder": out / "logs"}
    with contextlib.ExitStack() as serving:
        try:
            supervisor = serving.enter_context(Supervisor(SupervisorSettings(**values)))
        except ConflictError:
            ports = {name: 0 for name in SupervisorSettings.model_fields if name.endswith("_port")}
            supervisor = serving.enter_context(Supervisor(SupervisorSettings(**values | ports)))
        supervisor.wait_ready(_READY_LIMIT_S)
        yield supervisor


def _report(
    record: TrainingRecord, drive: DriveFigures, options: dict[str, Any], minutes: float
) -> dict[str, Any]:
    """Puts the figures into the shape of all reports, named as in the list of figures."""
    metrics = record.metrics
    figures = {
        "psnr_db": metrics.get("psnr_db"),
        "ssim": metrics.get("ssim"),
        "nearest_sample_psnr_db": metrics.get("nearest_sample_psnr_db"),
        "train_minutes": record.train_minutes,
        "frames_per_second": drive.frames_per_second,
        **{f"latency_ms_{name}": value for name, value in drive.latency_ms.items()},
        "total_minutes": minutes,
    }
    return build_report("demo", figures, options)


def _write(
    out: Path,
    report: dict[str, Any],
    record: TrainingRecord,
    drive: DriveFigures,
    given: DemoInput,
    info: VideoInfo,
) -> None:
    write_report(report, out / "report.json")
    plot_training_curve(record.points, out / "training_curve.png")
    notes = [
        f"demo.mp4: the last fifth of the clip, which training never saw ({drive.frame_count} "
        "frames), drives the avatar through tracking and rendering; the right half is synthetic.",
        f"Frames dropped live, at the clip's {info.fps:.0f} per second: {drive.dropped_count}.",
        f"Consent on record: {given.statement}",
    ]
    write_markdown(report, out / "report.md", source=given.source, notes=notes)


def _serve_on(supervisor: Supervisor, avatar_id: str, video: Path, console: Console) -> None:
    """Says where everything is and waits for Ctrl-C."""
    console.print(table_of(supervisor))
    address = supervisor.endpoints.tracking_address
    console.print(
        f"Still serving: open {supervisor.endpoints.gateway_url}, or drive the avatar yourself:\n"
        f"  styleavatar drive --avatar {avatar_id} --video {video} --tracking {address} "
        "-o driven.mp4\nCtrl-C ends it.",
        highlight=False,
        soft_wrap=True,
    )
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
    console.print("Ending all processes ...")
