# SPDX-License-Identifier: Apache-2.0
"""Stands in for hours of training: counts steps, with a checkpoint on disk, and can be killed."""

from __future__ import annotations

import time
from pathlib import Path

from services.common.job_records import JobRecords
from services.common.jobs import TrainingJob
from services.common.redis_client import connect_redis
from services.training.reporting import JobReporter
from services.training.settings import TrainingSettings
from styleavatar_core.errors import FaceNotFoundError, TrainingCanceled
from styleavatar_core.types import Progress
from tests.fakes.bundle import write_fake_bundle

STEP_COUNT = 60
CHECKPOINT_INTERVAL = 5
STEP_S = 0.05


def count_steps(job: TrainingJob, video: Path, work: Path, reporter: JobReporter) -> Path:
    """Goes on from the last checkpoint, as ``create_avatar`` does."""
    assert video.is_file()
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = work / "checkpoint"
    step = int(checkpoint.read_text()) if checkpoint.exists() else 0
    while step < STEP_COUNT:
        if reporter.should_stop():
            raise TrainingCanceled
        time.sleep(STEP_S)
        step += 1
        if step % CHECKPOINT_INTERVAL == 0:
            part = checkpoint.with_suffix(".part")
            part.write_text(str(step))
            part.replace(checkpoint)
        picture = b"a picture" if step == CHECKPOINT_INTERVAL else None
        reporter.on_progress(
            Progress("training", step / STEP_COUNT, step=step, preview_jpeg=picture)
        )
    return write_fake_bundle(work / "bundle", mark=1, consent=job.consent)


def cancel_late(job: TrainingJob, video: Path, work: Path, reporter: JobReporter) -> Path:
    """Is canceled when nobody asks any more."""
    bundle = write_fake_bundle(work / "bundle", mark=1, consent=job.consent)
    records = JobRecords(connect_redis(TrainingSettings().redis_url))
    records.update(job.job_id, cancel_requested=True)
    return bundle


def find_no_face(job: TrainingJob, video: Path, work: Path, reporter: JobReporter) -> Path:
    """Fails as a video of a wall does."""
    raise FaceNotFoundError("no face was found in the video", reason="FACE_NOT_FOUND")


def break_down(job: TrainingJob, video: Path, work: Path, reporter: JobReporter) -> Path:
    """Fails as a bug does."""
    raise ZeroDivisionError("a secret of the inside")


def hang(job: TrainingJob, video: Path, work: Path, reporter: JobReporter) -> Path:
    """Hears nothing any more, as where a device or a disk hangs."""
    reporter.on_progress(Progress("training", 0.5))
    while True:
        time.sleep(1)
