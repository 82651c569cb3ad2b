# SPDX-License-Identifier: Apache-2.0
"""Training jobs as stored in Redis: records, events, and who may write.

Each run of a job takes a new ``attempt`` number and only the latest attempt may write: an older
process that woke up late, or outlived its parent, is refused and stops.
"""

from __future__ import annotations

import contextlib
import logging
from datetime import UTC, datetime
from typing import Any, cast

from pydantic import ValidationError
from redis import Redis
from redis.client import Pipeline
from redis.exceptions import WatchError

from services.common.append_only_file import rewrite_after
from services.common.jobs import JobState, TrainingJob
from services.common.storage import is_valid_id
from styleavatar_core.errors import AssetError, ConflictError, NotFoundError

logger = logging.getLogger(__name__)

_KEY = "styleavatar:job:"
_INDEX = "styleavatar:jobs"
_DELETED = "styleavatar:deleted-jobs"
# Hash of the avatars of deleted jobs, so that a deletion that was broken off can be repeated.
_DELETED_AVATARS = "styleavatar:deleted-avatars"
# Set of the avatars that a person deleted, which a job that expires does not.
_UNWANTED_AVATARS = "styleavatar:unwanted-avatars"
_LATEST_DELETED = "styleavatar:latest-deleted-job"
# Hash of what has happened to jobs since the beginning, also to those that are gone.
_TOTALS = "styleavatar:job-totals"
_RESUMED = "resumed"
_EVENTS_KEPT, _EVENTS_KEPT_AFTERWARDS = 2000, 20  # each holds the whole job; ended ones are many


class StaleAttemptError(ConflictError):
    """A newer attempt owns the job: whoever gets this must stop and leave everything alone."""

    default_reason = "STALE_ATTEMPT"


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
            AssetError: Its record cannot be read.
        """
        if not is_valid_id(job_id):  # the name of another key, such as that of a job's events
            return self._parse(job_id, None)
        return self._parse(job_id, cast("bytes | None", self._redis.get(_KEY + job_id)))

    def ids(self) -> list[str]:
        """Returns the ids of all jobs, newest first."""
        return [key.decode() for key in cast("list[bytes]", self._redis.zrevrange(_INDEX, 0, -1))]

    def list(self) -> list[TrainingJob]:
        """Returns all jobs whose record can be read, newest first."""
        ids = self.ids()
        if not ids:
            return []
        jobs = []
        texts = cast("list[bytes | None]", self._redis.mget([_KEY + job_id for job_id in ids]))
        for job_id, text in zip(ids, texts, strict=True):
            try:
                jobs.append(self._parse(job_id, text))
            except NotFoundError:  # deleted just now
                continue
            except AssetError as error:
                logger.error("a job is left out", extra={"reason": str(error)})
        return jobs

    def find_by_avatar(self, avatar_id: str) -> TrainingJob | None:
        """Returns the job that makes or made an avatar, if it is known."""
        return next((job for job in self.list() if job.avatar_id == avatar_id), None)

    def update(
        self,
        job_id: str,
        *,
        fence: int | None = None,
        preview_jpeg: bytes | None = None,
        **changes: Any,
    ) -> TrainingJob:
        """Changes fields of a job and tells those who follow it; counts its ends and resumptions.

        Args:
            job_id: The job.
            fence: Number of the writer's attempt; None for the gateway, which owns no attempt.
            preview_jpeg: The latest picture of the job's state, if there is a new one.
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
                if preview_jpeg is not None:
                    pipeline.set(f"{key}:preview", preview_jpeg)
                    changes["has_preview"] = True
                if changes.get("state") is JobState.SUCCEEDED:
                    pipeline.delete(f"{key}:preview")  # the avatar has one of its own
                    changes["has_preview"] = False
                before, job = job, job.model_copy(update=changes)
                self._write(pipeline, job)
                self._count(pipeline, before, job)
                try:
                    pipeline.execute()
                except WatchError:
                    continue
                return job

    def totals(self) -> tuple[dict[str, int], int]:
        """Returns how often jobs reached each final state (in lower case), and were resumed.

        A job that is deleted or retried stays counted: these numbers only grow.
        """
        stored = cast("dict[bytes, bytes]", self._redis.hgetall(_TOTALS))
        totals = {name.decode(): int(count) for name, count in stored.items()}
        resumed = totals.pop(_RESUMED, 0)
        return totals, resumed

    def begin_attempt(self, job_id: str) -> TrainingJob:
        """Takes the job over: from now on only the returned ``attempt`` may write.

        A job that was already running when it is taken over has been interrupted, and is counted
        as resumed.
        """
        job = self.get(job_id)
        interrupted = job.started_time is not None
        died = job.state is JobState.RUNNING  # who stops in order leaves it queued
        return self.update(
            job_id,
            fence=job.attempt,
            attempt=job.attempt + 1,
            state=JobState.RUNNING,
            started_time=job.started_time or datetime.now(UTC),
            resume_count=job.resume_count + int(interrupted),
            fruitless_count=job.fruitless_count + int(died),
        )

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
        """Removes a job, its events and its preview; what stays is that it and its avatar were.

        Redis' append-only file, where there is one, is written anew without them.
        """
        with self._redis.pipeline() as pipeline:
            with contextlib.suppress(NotFoundError, AssetError):  # this is a repetition
                avatar_id = self.get(job_id).avatar_id
                pipeline.hset(_DELETED_AVATARS, avatar_id, job_id)
                pipeline.sadd(_UNWANTED_AVATARS, avatar_id)
            self._remove(pipeline, job_id)
            pipeline.execute()
        self.forget_deleted()

    def delete_ended(self, job_id: str, before: datetime) -> bool:
        """Removes a job that failed or was canceled before a moment; says whether it did.

        One that is retried meanwhile stays.
        """
        key = _KEY + job_id
        with self._redis.pipeline() as pipeline, contextlib.suppress(NotFoundError, WatchError):
            pipeline.watch(key)
            job = self._parse(job_id, cast("bytes | None", pipeline.get(key)))
            has_ended = job.state in (JobState.FAILED, JobState.CANCELED)
            if not has_ended or job.finished_time is None or job.finished_time >= before:
                return False
            pipeline.multi()
            pipeline.hset(_DELETED_AVATARS, job.avatar_id, job_id)
            self._remove(pipeline, job_id)
            pipeline.execute()
            self.forget_deleted()
            return True
        return False

    def forget_deleted(self) -> None:
        """Has Redis write its append-only file anew if deleted jobs may still be in it.

        To be called again, later: Redis does not begin while it is at it, and may fail.
        """
        latest = cast("bytes | None", self._redis.get(_LATEST_DELETED))
        if latest is not None:
            rewrite_after(self._redis, latest.decode())

    def find_deleted(self, avatar_id: str) -> str | None:
        """Returns the id of the deleted job that made an avatar, if there was one."""
        job_id = cast("bytes | None", self._redis.hget(_DELETED_AVATARS, avatar_id))
        return job_id.decode() if job_id is not None else None

    def deleted(self) -> set[str]:
        """Returns the ids of all jobs that were ever deleted."""
        return {key.decode() for key in cast("set[bytes]", self._redis.smembers(_DELETED))}

    def unwanted_avatars(self) -> set[str]:
        """Returns the ids of the avatars that were ever deleted with their job."""
        avatars = cast("set[bytes]", self._redis.smembers(_UNWANTED_AVATARS))
        return {avatar_id.decode() for avatar_id in avatars}

    def _remove(self, pipeline: Pipeline, job_id: str) -> None:
        pipeline.sadd(_DELETED, job_id)
        pipeline.delete(_KEY + job_id, events_key(job_id), f"{_KEY}{job_id}:preview")
        pipeline.zrem(_INDEX, job_id)
        pipeline.set(_LATEST_DELETED, job_id)

    def _write(self, pipeline: Pipeline, job: TrainingJob) -> None:
        text = job.model_dump_json()
        pipeline.set(_KEY + job.job_id, text)
        kept = _EVENTS_KEPT_AFTERWARDS if job.state.is_final else _EVENTS_KEPT
        pipeline.xadd(events_key(job.job_id), {"job": text}, maxlen=kept, approximate=False)

    def _count(self, pipeline: Pipeline, before: TrainingJob, after: TrainingJob) -> None:
        if after.state.is_final and after.state is not before.state:
            pipeline.hincrby(_TOTALS, after.state.lower(), 1)
        if after.resume_count > before.resume_count:
            pipeline.hincrby(_TOTALS, _RESUMED, after.resume_count - before.resume_count)

    @staticmethod
    def _parse(job_id: str, text: bytes | None) -> TrainingJob:
        if text is None:
            raise NotFoundError(f"there is no training job {job_id!r}", reason="JOB_NOT_FOUND")
        try:
            return TrainingJob.model_validate_json(text)
        except ValidationError as error:
            raise AssetError(
                f"the record of job {job_id} cannot be read: it is damaged, or of another version"
            ) from error


def events_key(job_id: str) -> str:
    """Returns the Redis stream that holds a job's events."""
    return f"{_KEY}{job_id}:events"
