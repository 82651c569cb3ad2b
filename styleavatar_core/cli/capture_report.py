# SPDX-License-Identifier: Apache-2.0
"""``styleavatar capture-report``: is a clip good enough, and what to film again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from styleavatar_core.cli.face_model_option import FaceModelOption
from styleavatar_core.cli.progress import progress_bars, stop_on_interrupt


def capture_report(
    clip: Annotated[Path, typer.Argument(help="Video of a face.")],
    out: Annotated[Path, typer.Argument(help="Folder for report.txt, report.json, report.png.")],
    face_model: FaceModelOption = "",
) -> None:
    """Say what a clip covers before anything is trained, and what to film again."""
    from styleavatar_core.face3d.library import choose_face_model
    from styleavatar_core.tracking.capture import FrameObserver, assess_capture
    from styleavatar_core.tracking.capture_files import write_capture_report
    from styleavatar_core.tracking.video import track_video

    observer = FrameObserver()
    with stop_on_interrupt() as should_stop, progress_bars() as on_progress:
        tracked = track_video(
            clip, choose_face_model(face_model), on_progress, should_stop, observer.see
        )
    report = assess_capture(clip.name, tracked, observer)
    write_capture_report(report, out)
    typer.echo(report.to_text())
