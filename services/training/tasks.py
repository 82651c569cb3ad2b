# SPDX-License-Identifier: Apache-2.0
"""The task that rq runs: from a job record to a bundle in the artifact store.

It may be run any number of times for one job: finished stages are reused, training resumes from
its last checkpoint, and a job that is already final is left alone.
"""

from __future__ import annotations

import importlib
import logging
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from rq.job import Retry

from services.common.job_queue import RETRY_LIMIT
from services.common.job_records import JobRecords, StaleAttemptError
from services.common.jobs import JobError, JobState, TrainingJob
from services.common.logging import configure_logging
from services.common.logging import job_id as job_id_in_log
from services.common.redis_client import connect_redis
from services.common.storage import AvatarStore, JobFolders
from services.training.reporting import JobReporter
from services.training.settings import TrainingSettings
from styleavatar_core.data.room import cannot_write
from styleavatar_core.errors import AssetError, NotFoundError, StyleAvatarError, TrainingCanceled

logger = logging.getLogger(__name__)

# Told to end (SIGTERM in the job's process): stop at the next step and leave the job to others.
interrupted = threading.Event()


class AvatarMaker(Protocol):
    """Makes an avatar from a video: ``styleavatar_core.training.create.create_avatar``."""

    def __call__(self, job: TrainingJob, video: Path, work: Path, reporter: JobReporter) -> Path:
        """Returns the folder of the finished bundle."""
        ...


def train_avatar(job_id: str) -> Retry | None:
    """Runs one training job to its end; called by rq in a process of its own.

    Args:
        job_id: Which job.

    Returns:
        None when the job is final; a request to put it back into the queue when this process was
        told to end before it was.
    """
    settings = TrainingSettings()
    configure_logging("trainer", settings.log_level, settings.log_format)
    job_id_in_log.set(job_id)
    run = TrainingRun(
        JobRecords(connect_redis(settings.redis_url)),
        JobFolders(settings.jobs_folder),
        AvatarStore(settings.avatars_folder),
        # A step of the training must not wait for long; its beginning and its end may.
        reports=JobRecords(connect_redis(settings.redis_url, retries=0, answer_limit_s=1.0)),
        fruitless_limit=settings.fruitless_limit,
    )
    module, name = settings.maker.split(":")
    is_final = run.run(job_id, getattr(importlib.import_module(module), name))
    return None if is_final else Retry(max=RETRY_LIMIT)


def make_avatar(job: TrainingJob, video: Path, work: Path, reporter: JobReporter) -> Path:
    """Runs the core's whole pipeline for a job."""
    from styleavatar_core.training.create import create_avatar  # loads torch: only in this process

    return create_avatar(
        video,
        work,
        work / "bundle",
        preset=job.preset,
        minutes=job.minutes,
        consent=job.consent,
        **models_of_others(TrainingSettings(), work),
        on_progress=reporter.on_progress,
        should_stop=reporter.should_stop,
    )


def models_of_others(settings: TrainingSettings, work: Path) -> dict[str, Any]:
    """Returns the arguments of ``create_avatar`` that name models.

    A training under way keeps those that it was begun with: else an operator who changes a setting
    would end it.
    """
    from styleavatar_core.data.dataset_info import read_info
    from styleavatar_core.data.matting import SELFIE
    from styleavatar_core.training.create import DATASET_FOLDER
    from styleavatar_core.training.perceptual import STRUCTURE_LOSS
    from styleavatar_core.training.record.checkpoint import (
        checkpoint_in,
        read_perceptual_loss,
    )

    models = {
        "face_model": settings.face_model,
        "perceptual_weights": settings.vgg19_weights,
        "matting_weights": settings.matting_weights,
    }
    checkpoint, info = checkpoint_in(work), read_info(work / DATASET_FOLDER)
    if checkpoint.exists() and info is not None:
        models["face_model"] = info.model_id
        if info.matting == SELFIE:
            models["matting_weights"] = None
        if read_perceptual_loss(checkpoint) == STRUCTURE_LOSS:
            models["perceptual_weights"] = None
    return models


class TrainingRun:
    """Takes jobs from their record to a final state."""

    def __init__(
        self,
        records: JobRecords,
        folders: JobFolders,
        store: AvatarStore,
        *,
        reports: JobRecords,
        fruitless_limit: int = 5,
    ) -> None:
        """Takes the parts.

        Args:
            records: Where jobs begin and end.
            folders: Files of jobs.
            store: Finished avatars.
            reports: The same records, over a connection that gives up soon.
            fruitless_limit: Interruptions in a row after which a job fails.
        """
        self._records = records
        self._reports = reports
        self._folders = folders
        self._store = store
        self._fruitless_limit = fruitless_limit

    def run(self, job_id: str, make: AvatarMaker) -> bool:
        """Runs a job.

        Args:
            job_id: Which job.
            make: Makes the avatar.

        Returns:
            Whether nothing is left to do; False when this process was told to end in the middle.
        """
        try:
            job = self._records.get(job_id)
            if job.state.is_final:
                return True
            job = self._records.begin_attempt(job_id)
        except (NotFoundError, StaleAttemptError, AssetError) as error:
            logger.info("nothing to do", extra={"cause": str(error)})
            return True
        logger.info("job begins", extra={"attempt": job.attempt, "resumes": job.resume_count})
        reporter = JobReporter(self._reports, job, interrupted)
        try:
            return self._attempt(job, make, reporter)
        except (StaleAttemptError, NotFoundError) as error:
            logger.warning("the job is deleted, or another's; stopped", extra={"cause": str(error)})
            self._clean_after_deletion(job)
            return True

    def _attempt(self, job: TrainingJob, make: AvatarMaker, reporter: JobReporter) -> bool:
        if job.cancel_requested:
            return self._finish(job, JobState.CANCELED)
        if job.fruitless_count >= self._fruitless_limit:
            return self._fail(
                job,
                "TRAINER_DIES",
                f"the trainer died {job.fruitless_count} times at the same place, most likely for"
                " want of memory; upload the video again with a smaller preset",
            )
        video = self._folders.upload(job.job_id, job.video_name)
        try:
            bundle = make(job, video, self._folders.work(job.job_id), reporter)
        except TrainingCanceled:
            return self._stopped(job, reporter)
        except StyleAvatarError as error:
            return self._fail(job, error.reason, str(error))
        except Exception:
            if reporter.is_replaced():  # its files may have been deleted under its feet
                raise StaleAttemptError(f"attempt {job.attempt} has the job no longer") from None
            logger.exception("job failed")
            return self._fail(
                job, "INTERNAL", f"training failed; the trainer's log says why under {job.job_id}"
            )
        return self._publish(job, bundle)

    def _publish(self, job: TrainingJob, bundle: Path) -> bool:
        # The last look before it is public.
        if self._records.update(job.job_id, fence=job.attempt).cancel_requested:
            return self._finish(job, JobState.CANCELED)
        try:
            self._store.publish(bundle, job.avatar_id)
        except OSError as error:
            failure = cannot_write("the avatar", self._store.root, error)
            return self._fail(job, failure.reason, str(failure))
        self._finish(job, JobState.SUCCEEDED)
        self._folders.delete(job.job_id)
        return True

    def _stopped(self, job: TrainingJob, reporter: JobReporter) -> bool:
        if reporter.is_abandoned:
            raise StaleAttemptError(f"attempt {job.attempt} has the job no longer")
        if reporter.is_canceled:
            return self._finish(job, JobState.CANCELED)
        self._records.update(job.job_id, fence=job.attempt, state=JobState.QUEUED)
        logger.info("job put back: this process was told to end")
        return False

    def _fail(self, job: TrainingJob, reason: str, message: str) -> bool:
        return self._finish(job, JobState.FAILED, JobError(reason=reason, message=message))

    def _finish(self, job: TrainingJob, state: JobState, error: JobError | None = None) -> bool:
        self._records.update(
            job.job_id,
            fence=job.attempt,
            state=state,
            error=error,
            finished_time=datetime.now(UTC),
        )
        why = {"reason": error.reason} if error else {}
        logger.info("job ends", extra={"state": state, **why})
        return True

    def _clean_after_deletion(self, job: TrainingJob) -> None:
        """Removes what this attempt wrote after a person had deleted the job."""
        try:
            self._records.get(job.job_id)
        except NotFoundError:
            self._folders.delete(job.job_id)
            self._store.delete(job.avatar_id)
