# SPDX-License-Identifier: Apache-2.0
"""Jobs from upload to avatar through real processes: events, kills, cancel, retry, delete."""

from __future__ import annotations

import json
import signal
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from services.common.jobs import JobState, TrainingJob
from tests.fakes.avatar_maker import CHECKPOINT_INTERVAL, STEP_COUNT
from tests.integration.job_system import (
    CONSENT,
    COUNT_STEPS,
    JobSystem,
    job_process,
    wait_for,
    write_clip,
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=6)


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobSystem]:
    """Redis and gateway, shared by the tests; each starts trainers of its own."""
    system = JobSystem(tmp_path_factory.mktemp("data"))
    try:
        system.start_redis()
        system.start_gateway()
        yield system
    finally:
        system.stop()


@pytest.fixture
def system(services: JobSystem) -> Iterator[JobSystem]:
    services.maker = COUNT_STEPS
    yield services
    services.stop_trainers()


def events(system: JobSystem, job_id: str, after: str = "") -> list[tuple[str, str, dict]]:
    """Returns (id, name, job) of all events until the stream ends."""
    headers = {"Last-Event-ID": after} if after else {}
    url = f"/v1/training-jobs/{job_id}/events"
    found, fields = [], {}
    with system.http.stream("GET", url, headers=headers) as answer:
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name:
                fields[name] = value
            elif "data" in fields:
                found.append((fields["id"], fields["event"], json.loads(fields["data"])))
                fields = {}
    return found


def start_job(system: JobSystem, clip: Path) -> tuple[str, str]:
    accepted = system.upload(clip)
    assert accepted.status_code == 202, accepted.text
    return accepted.json()["job_id"], accepted.json()["avatar_id"]


def leftovers(system: JobSystem, job_id: str, avatar_id: str) -> list[Path]:
    """Returns every file and folder that still carries the name of a job or its avatar."""
    hidden = list(system.data_folder.rglob(".*-*"))
    return [*system.data_folder.rglob(job_id), *system.data_folder.rglob(avatar_id), *hidden]


def steps_of(system: JobSystem, job_id: str) -> list[int]:
    jobs = [job for _, _, job in events(system, job_id)]
    return [job["progress"]["step"] for job in jobs if job["progress"]]


def test_from_upload_to_bundle_by_events(system: JobSystem, clip: Path) -> None:
    system.start_trainer()
    job_id, avatar_id = start_job(system, clip)
    seen = events(system, job_id)
    names = [name for _, name, _ in seen]
    assert names[-1] == "end"
    assert set(names[:-1]) == {"progress"}
    assert seen[-1][2]["state"] == "SUCCEEDED"
    assert seen[-1][2]["resume_count"] == 0
    fractions = [job["progress"]["overall_fraction"] for _, _, job in seen if job["progress"]]
    assert fractions == sorted(fractions)
    middle = len(seen) // 2
    assert events(system, job_id, after=seen[middle][0]) == seen[middle + 1 :]
    over = system.http.get(
        f"/v1/training-jobs/{job_id}/events", headers={"Last-Event-ID": seen[-1][0]}
    )
    assert over.status_code == 204

    avatar = system.http.get(f"/v1/avatars/{avatar_id}").json()
    assert (avatar["state"], avatar["consent"]["statement"]) == ("READY", CONSENT)
    bundle = system.http.get(f"/v1/avatars/{avatar_id}/bundle")
    manifest = json.loads(zipfile.ZipFile(BytesIO(bundle.content)).read("avatar.json"))
    assert manifest["consent"]["statement"] == CONSENT
    picture = system.http.get(f"/v1/training-jobs/{job_id}/preview.jpg")
    assert (picture.content, picture.headers["x-synthetic"]) == (b"a picture", "true")
    assert not (system.data_folder / "jobs" / job_id).exists()


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
    system.start_trainer()
    job = job_process(first)
    for process in (first, job):
        process.send_signal(signal.SIGKILL)
    first.wait()
    system.lose(job_id)
    finished = system.wait_until(job_id, lambda job: job.state.is_final)
    assert (finished.state, finished.attempt) == (JobState.SUCCEEDED, 2)


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


def test_cancel_and_retry(system: JobSystem, clip: Path) -> None:
    system.start_trainer()
    job_id, avatar_id = start_job(system, clip)
    system.wait_until(job_id, lambda job: job.progress and (job.progress.step or 0) > 10)
    url = f"/v1/training-jobs/{job_id}"
    assert system.http.post(f"{url}:retry").status_code == 409
    assert system.http.post(f"{url}:cancel").json()["cancel_requested"]
    canceled = system.wait_until(job_id, lambda job: job.state.is_final)
    assert canceled.state is JobState.CANCELED
    assert system.http.post(f"{url}:cancel").status_code == 409
    assert system.http.get(f"/v1/avatars/{avatar_id}/bundle").json()["reason"] == "AVATAR_NOT_READY"
    assert system.http.post(f"{url}:retry").status_code == 202
    finished = system.wait_until(job_id, lambda job: job.state.is_final)
    assert (finished.state, finished.resume_count) == (JobState.SUCCEEDED, 0)


def test_cancel_before_it_begins(system: JobSystem, clip: Path) -> None:
    job_id, _ = start_job(system, clip)
    answer = system.http.post(f"/v1/training-jobs/{job_id}:cancel")
    assert answer.json()["state"] == "CANCELED"
    system.start_trainer()
    second, _ = start_job(system, clip)
    system.wait_until(second, lambda job: job.state.is_final)
    assert system.records.get(job_id).attempt == 0


def test_delete_while_training_leaves_nothing(system: JobSystem, clip: Path) -> None:
    trainer = system.start_trainer()
    job_id, avatar_id = start_job(system, clip)
    system.wait_until(job_id, lambda job: job.progress)
    job = job_process(trainer)
    assert system.http.delete(f"/v1/avatars/{avatar_id}").status_code == 204
    wait_for(lambda: not job.is_running())
    assert system.http.get(f"/v1/training-jobs/{job_id}").status_code == 404
    assert system.http.get(f"/v1/avatars/{avatar_id}").status_code == 404
    assert leftovers(system, job_id, avatar_id) == []
    assert trainer.poll() is None
    next_job, _ = start_job(system, clip)
    assert system.wait_until(next_job, lambda job: job.state.is_final).state == "SUCCEEDED"


def test_delete_when_ready_leaves_nothing(system: JobSystem, clip: Path) -> None:
    system.start_trainer()
    job_id, avatar_id = start_job(system, clip)
    system.wait_until(job_id, lambda job: job.state.is_final)
    assert system.http.delete(f"/v1/avatars/{avatar_id}").status_code == 204
    assert leftovers(system, job_id, avatar_id) == []
    assert system.http.get(f"/v1/training-jobs/{job_id}").status_code == 404


@pytest.mark.parametrize(
    ("maker", "reason"), [("find_no_face", "FACE_NOT_FOUND"), ("break_down", "INTERNAL")]
)
def test_a_job_that_fails_says_why(system: JobSystem, clip: Path, maker: str, reason: str) -> None:
    system.maker = f"tests.fakes.avatar_maker:{maker}"
    system.start_trainer()
    job_id, avatar_id = start_job(system, clip)
    *_, (_, name, job) = events(system, job_id)
    assert (name, job["state"], job["error"]["reason"]) == ("end", "FAILED", reason)
    assert "secret" not in job["error"]["message"]
    assert system.http.get(f"/v1/avatars/{avatar_id}").json()["state"] == "FAILED"
