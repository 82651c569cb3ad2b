# SPDX-License-Identifier: Apache-2.0
"""Training jobs as stored in Redis: record, states, events, and who may write.

The queue (rq) decides who runs a job; this record says what a person sees of it. Each run of a
job takes a new ``attempt`` number and only the latest attempt may write: an older process that
woke up late, or outlived its parent, is refused and stops.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field
from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.client import Pipeline
from redis.exceptions import WatchError
from redis.retry import Retry
from rq.job import Job
from rq.job import Retry as QueueRetry
from rq.queue import Queue
from rq.serializers import JSONSerializer

from styleavatar_core.errors import ConflictError, NotFoundError
from styleavatar_core.provenance.consent import ConsentRecord
from styleavatar_core.types import Progress

TRAINING_QUEUE = "styleavatar-training"
TRAIN_TASK = "services.training.tasks.train_avatar"
RETRY_LIMIT = 100

_KEY = "styleavatar:job:"
_INDEX = "styleavatar:jobs"
_EVENTS_KEPT = 2000
# Share of the whole job at which a stage starts, and how much of the job it is.
_STAGES = {
    "tracking": (0.0, 0.10),
    "rendering": (0.10, 0.05),
    "matting": (0.15, 0.05),
    "training": (0.20, 0.75),
    "export": (0.95, 0.05),
}


class JobState(StrEnum):
    """Where a training job stands."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens to the job by itself."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED)


class JobProgress(BaseModel):
    """How far the job has come, as last reported; see ``styleavatar_core.types.Progress``."""

    model_config = ConfigDict(frozen=True)

    stage: str
    fraction: float = Field(description="Share of this stage that is done, in [0, 1].")
    message: str = ""
    step: int | None = None
    eta_s: float | None = None
    losses: dict[str, float] = Field(default_factory=dict)
    psnr_db: float | None = None
    overall_fraction: float = Field(default=0.0, description="Share of the whole job, in [0, 1].")

    @classmethod
    def from_core(cls, progress: Progress) -> JobProgress:
        """Takes over a progress event of the core, without its picture."""
        start, width = _STAGES.get(progress.stage, (0.0, 0.0))
        values = {field: getattr(progress, field) for field in _CORE_FIELDS}
        if progress.eta_s is not None:
            values["eta_s"] = max(0.0, progress.eta_s)
        return cls(**values, overall_fraction=round(start + width * progress.fraction, 6))


_CORE_FIELDS = tuple(name for name in JobProgress.model_fields if name != "overall_fraction")


class JobError(BaseModel):
    """Why a job failed: a word for programs, a sentence for people."""

    model_config = ConfigDict(frozen=True)

    reason: str
    message: str


class TrainingJob(BaseModel):
    """One request to make an avatar, from upload to bundle."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    avatar_id: str
    state: JobState = JobState.QUEUED
    preset: str
    minutes: float = Field(description="Training time asked for, without tracking and export.")
    consent: ConsentRecord
    video_name: str = Field(default="", description="Name of the uploaded file, for people only.")
    created_time: datetime
    started_time: datetime | None = None
    finished_time: datetime | None = None
    attempt: int = Field(default=0, description="Number of the latest run; fences older ones.")
    resume_count: int = Field(default=0, description="How often work went on after a break.")
    fruitless_count: int = Field(
        default=0, description="Breaks in a row with no progress between them."
    )
    furthest_fraction: float = Field(
        default=0.0, description="Highest overall fraction that any attempt reached."
    )
    cancel_requested: bool = False
    progress: JobProgress | None = None
    has_preview: bool = False
    error: JobError | None = None


class StaleAttemptError(ConflictError):
    """A newer attempt owns the job: whoever gets this must stop and leave everything alone."""

    default_reason = "STALE_ATTEMPT"


def connect_redis(url: str, *, retries: int = 60) -> Redis:
    """Connects to Redis.

    Args:
        url: Where it is: ``redis://``, ``rediss://`` or ``unix://``.
        retries: How often a command is tried again while Redis is away, at growing distances of
            up to two seconds; the default suits hour-long jobs: about two minutes.
    """
    patience = Retry(ExponentialBackoff(cap=2.0, base=0.05), retries=retries)
    return Redis.from_url(url, retry=patience, socket_connect_timeout=5, health_check_interval=30)


class JobRecords:
    """Reads and writes training jobs in Redis.

    A job is one JSON value, changed under WATCH, so that no change is lost between gateway and
    trainer; each change is also appended to a stream that server-sent events are read from.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def create(self, job: TrainingJob) -> None:
        """Stores a new job."""
        with self._redis.pipeline() as pipeline:
            pipeline.zadd(_INDEX, {job.job_id: job.created_time.timestamp()})
            self._write(pipeline, job)
            pipeline.execute()

    def get(self, job_id: str) -> TrainingJob:
        """Returns a job.

        Raises:
            NotFoundError: There is no such job, or it was deleted.
        """
        return self._parse(job_id, cast("bytes | None", self._redis.get(_KEY + job_id)))

    def list(self) -> list[TrainingJob]:
        """Returns all jobs, newest first."""
        ids = [key.decode() for key in cast("list[bytes]", self._redis.zrevrange(_INDEX, 0, -1))]
        if not ids:
            return []
        texts = cast("list[bytes | None]", self._redis.mget([_KEY + job_id for job_id in ids]))
        return [TrainingJob.model_validate_json(text) for text in texts if text is not None]

    def find_by_avatar(self, avatar_id: str) -> TrainingJob | None:
        """Returns the job that makes or made an avatar, if it is known."""
        return next((job for job in self.list() if job.avatar_id == avatar_id), None)

    def update(self, job_id: str, *, fence: int | None = None, **changes: Any) -> TrainingJob:
        """Changes fields of a job and tells those who follow it.

        Args:
            job_id: The job.
            fence: Number of the writer's attempt; None for the gateway, which owns no attempt.
            **changes: Fields of TrainingJob and their new values.

        Returns:
            The job as stored.

        Raises:
            NotFoundError: The job was deleted.
            StaleAttemptError: A newer attempt owns the job.
        """
        key = _KEY + job_id
        while True:
            with self._redis.pipeline() as pipeline:
                pipeline.watch(key)
                job = self._parse(job_id, cast("bytes | None", pipeline.get(key)))
                if fence is not None and job.attempt != fence:
                    raise StaleAttemptError(
                        f"attempt {fence} of {job_id} is over; attempt {job.attempt} owns it"
                    )
                pipeline.multi()
                job = job.model_copy(update=changes)
                self._write(pipeline, job)
                try:
                    pipeline.execute()
                except WatchError:
                    continue
                return job

    def begin_attempt(self, job_id: str) -> TrainingJob:
        """Takes the job over: from now on only the returned ``attempt`` may write.

        A job that was already running when it is taken over has been interrupted, and is counted
        as resumed.
        """
        job = self.get(job_id)
        interrupted = job.started_time is not None
        return self.update(
            job_id,
            fence=job.attempt,
            attempt=job.attempt + 1,
            state=JobState.RUNNING,
            started_time=job.started_time or datetime.now(UTC),
            resume_count=job.resume_count + int(interrupted),
            fruitless_count=job.fruitless_count + int(interrupted),
        )

    def set_preview(self, job_id: str, picture_jpeg: bytes) -> None:
        """Keeps the latest picture of a job's state."""
        self._redis.set(f"{_KEY}{job_id}:preview", picture_jpeg)

    def get_preview(self, job_id: str) -> bytes:
        """Returns the latest picture of a job's state.

        Raises:
            NotFoundError: There is none yet.
        """
        picture = cast("bytes | None", self._redis.get(f"{_KEY}{job_id}:preview"))
        if picture is None:
            raise NotFoundError(f"job {job_id} has no preview yet", reason="PREVIEW_NOT_FOUND")
        return picture

    def delete(self, job_id: str) -> None:
        """Removes a job, its events and its preview."""
        with self._redis.pipeline() as pipeline:
            pipeline.delete(_KEY + job_id, events_key(job_id), f"{_KEY}{job_id}:preview")
            pipeline.zrem(_INDEX, job_id)
            pipeline.execute()

    def events_after(self, job_id: str, event_id: str = "0") -> Iterator[tuple[str, TrainingJob]]:
        """Yields the stored events of a job after one of them, oldest first."""
        entries = cast("Any", self._redis.xrange(events_key(job_id), min=f"({event_id}"))
        for entry_id, fields in entries:
            yield entry_id.decode(), TrainingJob.model_validate_json(fields[b"job"])

    def _write(self, pipeline: Pipeline, job: TrainingJob) -> None:
        text = job.model_dump_json()
        pipeline.set(_KEY + job.job_id, text)
        pipeline.xadd(events_key(job.job_id), {"job": text}, maxlen=_EVENTS_KEPT)

    @staticmethod
    def _parse(job_id: str, text: bytes | None) -> TrainingJob:
        if text is None:
            raise NotFoundError(f"there is no training job {job_id!r}", reason="JOB_NOT_FOUND")
        return TrainingJob.model_validate_json(text)


def training_queue(redis: Redis) -> Queue:
    """Returns the queue of training jobs; what is in it is JSON, never pickle."""
    return Queue(TRAINING_QUEUE, connection=redis, serializer=JSONSerializer)


def enqueue_training(redis: Redis, job_id: str) -> None:
    """Puts a job into the queue, once.

    The job's record says how many interruptions are enough; rq's own limit is far beyond it.
    """
    withdraw_training(redis, job_id)
    training_queue(redis).enqueue_call(
        TRAIN_TASK,
        args=(job_id,),
        job_id=job_id,
        timeout=-1,
        result_ttl=0,
        retry=QueueRetry(max=RETRY_LIMIT),
    )


def withdraw_training(redis: Redis, job_id: str) -> None:
    """Takes a waiting job out of the queue; not to be used on a running one."""
    queue = training_queue(redis)
    queue.intermediate_queue.remove(job_id)
    job = queue.fetch_job(job_id)
    if job is not None:
        forget_executions(job)
        job.delete()


def forget_executions(job: Job) -> None:
    """Makes rq forget earlier executions of a job.

    Their records expire about a minute after their worker's death, the list of them does not, and
    rq then can neither finish nor delete the job.
    """
    job.connection.delete(job.execution_registry.key)


def events_key(job_id: str) -> str:
    """Returns the Redis stream that holds a job's events."""
    return f"{_KEY}{job_id}:events"
