# SPDX-License-Identifier: Apache-2.0
"""A job outlives its trainer, its place in the queue, and Redis."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import httpx
import psutil
import pytest

from services.common.job_queue import enqueue_training, training_queue, withdraw_training
from services.common.jobs import JobState, TrainingJob
from services.common.redis_client import connect_redis
from services.common.storage import JobFolders
from styleavatar_core.errors import NotFoundError
from styleavatar_core.provenance.consent import make_consent
from tests.fakes.avatar_maker import CHECKPOINT_INTERVAL, STEP_COUNT
from tests.integration.job_system import (
    CONSENT,
    COUNT_STEPS,
    JobSystem,
    job_process,
    start_job,
    steps_of,
    wait_for,
)
from tests.integration.service_process import free_port


@pytest.fixture
def system(system: JobSystem) -> Iterator[JobSystem]:
    system.maker = COUNT_STEPS
    system.begin_test()
    yield system
    system.stop_trainers()


@pytest.mark.parametrize("victims", ["worker", "job", "both"])
def test_sigkill_loses_only_work_since_the_checkpoint(
    system: JobSystem, clip: Path, victims: str
) -> None:
    trainer = system.start_trainer()
    job_id, _ = start_job(system, clip)
    system.wait_until(job_id, lambda job: job.progress and (job.progress.step or 0) > 10)
    job = job_process(trainer)
    if victims in ("worker", "both"):
        trainer.send_signal(signal.SIGKILL)
        trainer.wait()
    if victims in ("job", "both"):
        job.send_signal(signal.SIGKILL)
    wait_for(lambda: not job.is_running())
    if victims != "job":
        assert system.records.get(job_id).state is JobState.RUNNING
        system.start_trainer()
    finished = system.wait_until(job_id, lambda job: job.state.is_final)
    assert finished.state is JobState.SUCCEEDED
    assert finished.resume_count == 1
    steps = steps_of(system, job_id)
    # Progress is reported twice a second, so the step at the moment of the kill may be a little
    # above the last one reported, and the first one after it a little above the checkpoint.
    losses = [before - after for before, after in pairwise(steps)]
    assert max(losses) < CHECKPOINT_INTERVAL
    assert steps[-1] == STEP_COUNT


def test_a_trainer_that_comes_back_much_later(system: JobSystem, clip: Path) -> None:
    trainer = system.start_trainer(lease_s=5)
    job_id, _ = start_job(system, clip)
    system.wait_until(job_id, lambda job: job.progress)
    job = job_process(trainer)
    for process in (trainer, job):
        process.send_signal(signal.SIGKILL)
    trainer.wait()
    system.expire_executions()
    system.start_trainer(lease_s=5)
    finished = system.wait_until(job_id, lambda job: job.state.is_final)
    assert (finished.state, finished.resume_count) == (JobState.SUCCEEDED, 1)
    wait_for(lambda: not system.is_in_queue(job_id))
    assert system.stack_traces() == ""


def test_sigterm_puts_the_job_back_and_ends_cleanly(system: JobSystem, clip: Path) -> None:
    trainer = system.start_trainer()
    job_id, _ = start_job(system, clip)
    system.wait_until(job_id, lambda job: job.progress and (job.progress.step or 0) > 10)
    trainer.send_signal(signal.SIGTERM)
    assert trainer.wait(30) == 0
    assert system.records.get(job_id).state is JobState.QUEUED
    system.start_trainer()
    finished = system.wait_until(job_id, lambda job: job.state.is_final)
    assert (finished.state, finished.resume_count) == (JobState.SUCCEEDED, 1)
    assert system.stack_traces() == ""


@contextmanager
def lost_trainer(system: JobSystem, clip: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Gives a job under way and its process, stopped as on a machine that has lost its network."""
    first = system.start_trainer(lease_s=5)
    job_id, _ = start_job(system, clip)
    system.wait_until(job_id, lambda job: job.progress)
    job = job_process(first)
    for process in (first, job):
        process.send_signal(signal.SIGSTOP)
    try:
        yield job_id, job
    finally:
        for process in (job, first):
            process.send_signal(signal.SIGCONT)


def take_over(system: JobSystem, job_id: str) -> TrainingJob:
    """Starts another trainer; returns the job once that has finished it."""
    system.start_trainer(lease_s=5)
    finished = system.wait_until(job_id, lambda job: job.state.is_final)
    assert (finished.state, finished.attempt) == (JobState.SUCCEEDED, 2)
    return finished


def test_another_trainer_takes_over_when_the_lease_ends(system: JobSystem, clip: Path) -> None:
    with lost_trainer(system, clip) as (job_id, job):
        finished = take_over(system, job_id)
    wait_for(lambda: not job.is_running() or job.status() == "zombie")
    assert system.records.get(job_id) == finished, "the old copy must not write any more"


def test_a_trainer_ended_while_it_cleaned_keeps_nobody_from_taking_over(
    system: JobSystem, clip: Path
) -> None:
    with lost_trainer(system, clip) as (job_id, _):
        system.leave_cleaning_lock()
        take_over(system, job_id)


def test_a_job_that_the_queue_has_lost_is_put_back(system: JobSystem, clip: Path) -> None:
    first = system.start_trainer()
    job_id, _ = start_job(system, clip)
    system.wait_until(job_id, lambda job: job.progress)
    job = job_process(first)
    for process in (first, job):
        process.send_signal(signal.SIGSTOP)  # the job must not end while the other trainer starts
    system.start_trainer()
    for process in (first, job):
        process.send_signal(signal.SIGKILL)
    first.wait()
    system.lose(job_id)
    finished = system.wait_until(job_id, lambda job: job.state.is_final)
    assert (finished.state, finished.attempt) == (JobState.SUCCEEDED, 2)


def test_many_may_put_a_job_back_and_take_it_out_at_once(system: JobSystem) -> None:
    def disturb(turn: int) -> None:
        redis = connect_redis(system.redis_url)
        for _ in range(50):
            (enqueue_training if turn % 2 else withdraw_training)(redis, "job-disputed")
        redis.close()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(disturb, range(8)))
    redis = connect_redis(system.redis_url)
    enqueue_training(redis, "job-disputed")
    assert training_queue(redis).get_job_ids().count("job-disputed") == 1
    withdraw_training(redis, "job-disputed")
    assert training_queue(redis).get_job_ids().count("job-disputed") == 0
    redis.close()


def test_redis_away_for_a_while(system: JobSystem, clip: Path) -> None:
    system.start_trainer()
    job_id, _ = start_job(system, clip)
    system.wait_until(job_id, lambda job: job.progress)
    system.redis_process.send_signal(signal.SIGKILL)
    system.redis_process.wait()
    answer = system.http.get("/v1/avatars")
    assert (answer.status_code, answer.json()["reason"]) == (503, "QUEUE_AWAY")
    system.start_redis()
    finished = system.wait_until(job_id, lambda job: job.state.is_final)
    assert finished.state is JobState.SUCCEEDED


def test_training_goes_on_while_redis_is_silent(system: JobSystem, clip: Path) -> None:
    system.start_trainer()
    job_id, _ = start_job(system, clip)
    system.wait_until(job_id, lambda job: job.progress and (job.progress.step or 0) > 10)
    checkpoint = JobFolders(system.data_folder / "jobs").work(job_id) / "checkpoint"
    system.redis_process.send_signal(signal.SIGSTOP)
    try:
        wait_for(lambda: int(checkpoint.read_text()) == STEP_COUNT, timeout_s=60)
    finally:
        system.redis_process.send_signal(signal.SIGCONT)
    finished = system.wait_until(job_id, lambda job: job.state.is_final)
    assert (finished.state, finished.attempt) == (JobState.SUCCEEDED, 1)


def test_metrics_are_told_while_redis_is_silent(system: JobSystem) -> None:
    port = free_port()
    system.start_trainer(metrics_port=port)

    def told() -> str:
        return httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=20).text

    assert "styleavatar_training_redis_up 1.0" in told()
    assert "styleavatar_training_queued_jobs" in told()
    system.redis_process.send_signal(signal.SIGSTOP)
    try:
        away = told()
    finally:
        system.redis_process.send_signal(signal.SIGCONT)
    assert "styleavatar_training_redis_up 0.0" in away
    assert "jobs" not in away
    assert "styleavatar_training_redis_up 1.0" in told()


def record(system: JobSystem, job_id: str, state: JobState = JobState.QUEUED) -> None:
    """Writes a job's record, as if it had come to a state."""
    consent = make_consent(CONSENT, subject=None, given_by=None, source_description="")
    job = TrainingJob(
        job_id=job_id,
        avatar_id=f"avatar-of-{job_id}",
        preset="nano",
        minutes=1,
        consent=consent,
        video_name="clip.mp4",
        created_time=datetime.now(UTC),
    )
    system.records.create(job)
    system.records.update(job_id, state=state)


def test_files_go_with_their_deleted_or_finished_job_and_with_no_other(system: JobSystem) -> None:
    folders = JobFolders(system.data_folder / "jobs")
    for job_id in ("job-deleted", "job-done", "job-failed", "job-unknown"):
        folders.accept_upload(folders.new_upload_folder(), job_id)
    folders.folder("job-another").symlink_to(system.data_folder)  # cannot be removed
    for job_id in ("job-another", "job-deleted"):
        system.records.delete(job_id)
    # Its trainer died between telling of its success and removing its files.
    record(system, "job-done", JobState.SUCCEEDED)
    record(system, "job-failed", JobState.FAILED)
    trainer = system.start_trainer()
    assert folders.list() == ["job-failed", "job-unknown"]
    assert "job-unknown" in system.log_path.read_text()
    assert "job-another" in system.log_path.read_text()
    for link in folders.root.glob(".trash-*"):
        link.unlink()
    assert trainer.poll() is None
    for job_id in ("job-failed", "job-unknown"):
        folders.delete(job_id)
    for job_id in ("job-done", "job-failed"):
        system.records.delete(job_id)


def test_a_picture_of_a_deleted_job_is_not_kept(system: JobSystem) -> None:
    record(system, "job-shown")
    system.records.update("job-shown", preview_jpeg=b"before")
    assert system.records.get_preview("job-shown") == b"before"
    system.records.delete("job-shown")
    with pytest.raises(NotFoundError, match="no training job"):
        system.records.update("job-shown", preview_jpeg=b"after")
    with pytest.raises(NotFoundError, match="no preview"):
        system.records.get_preview("job-shown")
