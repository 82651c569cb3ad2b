# SPDX-License-Identifier: Apache-2.0
"""What the trainer counts, from a real Redis: counters never fall, whatever becomes of a job."""

from __future__ import annotations

import re
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis.exceptions import ReadOnlyError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq.serializers import JSONSerializer

from services.common.append_only_file import _REWRITTEN_AFTER
from services.common.housekeeping import remove_leftovers
from services.common.job_queue import training_queue
from services.common.job_records import JobRecords, StaleAttemptError, events_key
from services.common.jobs import JobProgress, JobState, TrainingJob
from services.common.storage import AvatarStore, JobFolders
from services.training.reporting import JobReporter
from services.training.server import job_metrics
from services.training.worker import TrainingWorker
from styleavatar_core.errors import NotFoundError
from styleavatar_core.provenance.consent import make_consent
from styleavatar_core.types import Progress
from tests.integration.job_system import CONSENT, wait_for


def create(records: JobRecords, job_id: str) -> str:
    records.create(
        TrainingJob(
            job_id=job_id,
            avatar_id=f"avatar-of-{job_id}",
            preset="nano",
            minutes=1.0,
            consent=make_consent(CONSENT),
            created_time=datetime.now(UTC),
        )
    )
    return job_id


def test_only_deaths_count_against_a_job(records: JobRecords) -> None:
    job_id = create(records, "job-1")
    for _ in range(3):  # told to end, it puts the job back
        job = records.begin_attempt(job_id)
        records.update(job_id, fence=job.attempt, state=JobState.QUEUED)
    job = records.begin_attempt(job_id)
    assert (job.fruitless_count, job.resume_count) == (0, 3)
    job = records.begin_attempt(job_id)  # of a trainer that was killed
    assert (job.fruitless_count, job.resume_count) == (1, 4)


def test_a_record_that_cannot_be_read_ends_neither_training_nor_trainer(
    records: JobRecords,
) -> None:
    job = records.begin_attempt(create(records, "job-1"))
    records._redis.set("styleavatar:job:job-1", '{"state": "UNHEARD_OF"}')
    reporter = JobReporter(records, job, threading.Event())
    reporter.on_progress(Progress("training", 0.5))
    assert not reporter.should_stop()
    worker = TrainingWorker(
        [training_queue(records._redis)],
        connection=records._redis,
        serializer=JSONSerializer,
        prepare_for_work=False,
    )
    worker._end_if_unwanted("job-1", records)
    assert worker._unwanted_since_time is None


def sample(records: JobRecords, name: str, **labels: str) -> float | None:
    return job_metrics(records).get_sample_value(f"styleavatar_training_{name}", labels)


def ended(records: JobRecords, state: str) -> float | None:
    return sample(records, "jobs_total", state=state)


def test_a_deleted_job_stays_counted(records: JobRecords) -> None:
    assert ended(records, "failed") == 0
    for name in ("one", "two"):
        records.update(create(records, name), state=JobState.FAILED)
    records.delete("one")
    assert ended(records, "failed") == 2
    assert (ended(records, "succeeded"), ended(records, "canceled")) == (0, 0)


def test_a_job_that_is_retried_counts_each_of_its_ends(records: JobRecords) -> None:
    job_id = create(records, "one")
    records.update(job_id, state=JobState.FAILED)
    records.update(job_id, state=JobState.QUEUED)
    assert (ended(records, "failed"), sample(records, "queued_jobs")) == (1, 1)
    records.update(job_id, state=JobState.RUNNING)
    assert (sample(records, "queued_jobs"), sample(records, "running_jobs")) == (0, 1)
    records.update(job_id, state=JobState.SUCCEEDED)
    assert (ended(records, "failed"), ended(records, "succeeded")) == (1, 1)


def test_what_changes_later_in_a_final_job_is_no_second_end(records: JobRecords) -> None:
    job_id = create(records, "one")
    records.update(job_id, state=JobState.CANCELED)
    records.update(job_id, state=JobState.CANCELED, finished_time=datetime.now(UTC))
    records.update(job_id, cancel_requested=True)
    assert ended(records, "canceled") == 1


def test_a_writer_who_is_refused_counts_nothing(records: JobRecords) -> None:
    job_id = create(records, "one")
    records.begin_attempt(job_id)
    with pytest.raises(StaleAttemptError):
        records.update(job_id, fence=0, state=JobState.FAILED)
    assert ended(records, "failed") == 0


def test_resumptions_of_a_deleted_job_stay_counted(records: JobRecords) -> None:
    job_id = create(records, "one")
    records.begin_attempt(job_id)
    assert sample(records, "resumed_jobs_total") == 0
    records.begin_attempt(job_id)
    records.begin_attempt(job_id)
    records.delete(job_id)
    assert sample(records, "resumed_jobs_total") == 2


def test_a_finished_job_keeps_no_picture(records: JobRecords) -> None:
    job_id = create(records, "job-1")
    assert records.update(job_id, preview_jpeg=b"picture").has_preview
    assert not records.update(job_id, state=JobState.SUCCEEDED).has_preview
    with pytest.raises(NotFoundError, match="no preview"):
        records.get_preview(job_id)


def test_what_was_deleted_leaves_the_append_only_file(
    records: JobRecords, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept() -> set[str]:
        files = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".log"]
        found = [re.findall(rb":job:(job-\w+)", path.read_bytes()) for path in files]
        return {name.decode() for names in found for name in names}

    names = {f"job-secret{number}" for number in range(3)}
    for name in names:
        create(records, name)
    assert kept() == names
    with monkeypatch.context() as patch:

        def break_off(*_: object) -> None:
            raise RedisTimeoutError("Redis is gone")

        patch.setattr("redis.Redis.bgrewriteaof", break_off)
        records.delete("job-secret0")
    for name in sorted(names)[1:]:  # Redis is at it still when the second is deleted
        records.delete(name)

    def are_forgotten() -> bool:
        remove_leftovers(records, JobFolders(tmp_path / "jobs"), AvatarStore(tmp_path / "avatars"))
        return not kept()

    for folder in ("jobs", "avatars"):
        (tmp_path / folder).mkdir()
    wait_for(are_forgotten)


def test_a_redis_that_takes_no_writes_ends_no_training(
    records: JobRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = records.begin_attempt(create(records, "job-1"))
    reporter = JobReporter(records, job, threading.Event())
    with monkeypatch.context() as patch:

        def refuse(*_: object, **__: object) -> None:
            raise ReadOnlyError("You can't write against a read only replica.")

        patch.setattr("redis.client.Pipeline.execute", refuse)
        reporter.on_progress(Progress("training", 0.5))
    assert not reporter.should_stop()
    reporter.on_progress(Progress("export", 1.0))
    progress = records.get("job-1").progress
    assert progress is not None
    assert progress.stage == "export"


def test_few_events_of_a_job_stay_once_it_has_ended(records: JobRecords) -> None:
    job_id = create(records, "job-1")
    for step in range(60):
        records.update(job_id, progress=JobProgress.from_core(Progress("training", 0.5, step=step)))
    events = events_key(job_id)
    assert records._redis.xlen(events) > 60
    records.update(job_id, state=JobState.FAILED)
    assert records._redis.xlen(events) == 20
    records.update(job_id, state=JobState.QUEUED)
    assert records._redis.xlen(events) == 21


def test_a_rewrite_that_a_restart_broke_off_is_done_again(records: JobRecords) -> None:
    create(records, "job-1")
    records.delete("job-1")
    redis = records._redis
    wait_for(lambda: redis.info("persistence")["aof_rewrite_in_progress"] == 0)
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("redis.Redis.bgrewriteaof", lambda _: asked.append(1))
        records.forget_deleted()
        assert asked == []
        # As a server finds it that was started after the one that began the rewrite.
        redis.set(_REWRITTEN_AFTER, "job-1 of-another-run")
        records.forget_deleted()
        assert asked == [1]
