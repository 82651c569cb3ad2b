# SPDX-License-Identifier: Apache-2.0
"""What is deleted is gone, also when the first try is broken off and when nobody deletes."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from redis.exceptions import ResponseError

from services.common.job_queue import training_queue
from services.common.job_records import JobRecords
from services.common.jobs import JobState, TrainingJob
from services.common.metrics import GatewayMetrics
from services.common.storage import AvatarStore, JobFolders
from services.gateway import housekeeping
from services.gateway.app import make_app
from services.gateway.settings import GatewaySettings
from styleavatar_core.provenance.consent import make_consent
from tests.fakes.bundle import write_fake_bundle
from tests.integration.job_system import (
    CONSENT,
    JobSystem,
    leftovers,
    readable_by_others,
    start_job,
    wait_for,
)


def test_a_deletion_that_was_broken_off_can_be_repeated(
    system: JobSystem, clip: Path, tmp_path: Path
) -> None:
    job_id, avatar_id = start_job(system, clip)
    # It dies after it has removed the record and before it removes the files.
    system.records.delete(job_id)
    store = AvatarStore(system.data_folder / "avatars")
    store.publish(write_fake_bundle(tmp_path / "bundle", mark=1), avatar_id)
    assert list((system.data_folder / "jobs" / job_id).rglob("*.mp4"))
    for _ in range(2):
        assert system.http.delete(f"/v1/avatars/{avatar_id}").status_code == 204
        assert leftovers(system, job_id, avatar_id) == []
    assert system.http.get(f"/v1/avatars/{avatar_id}").status_code == 404
    assert system.http.delete("/v1/avatars/avatar-never-there").status_code == 404


def test_what_a_job_has_is_its_owners_alone(system: JobSystem, clip: Path) -> None:
    job_id, _ = start_job(system, clip)
    files = list((system.data_folder / "jobs" / job_id).rglob("*.mp4"))
    assert len(files) == 1
    assert readable_by_others(system.data_folder / "jobs") == []


def test_a_queue_that_fails_keeps_no_files(system: JobSystem, clip: Path) -> None:
    job_id, avatar_id = start_job(system, clip)
    queue = training_queue(system.redis)
    system.redis.set(queue.intermediate_queue_key, "not a list")  # rq's part of it fails
    assert system.http.delete(f"/v1/avatars/{avatar_id}").status_code >= 500
    assert leftovers(system, job_id, avatar_id) == []
    system.redis.delete(queue.intermediate_queue_key)
    assert system.http.delete(f"/v1/avatars/{avatar_id}").status_code == 204


def tidy_up(system: JobSystem, rounds: int = 1, **values: int) -> None:
    """Runs a gateway that nobody asks for anything until it has tidied up."""
    settings = GatewaySettings(redis_url=system.redis_url, data_folder=system.data_folder, **values)
    app = make_app(settings, GatewayMetrics(CollectorRegistry()))
    is_done = threading.Event()
    left = rounds
    tidy_up_once = housekeeping._tidy_up

    def counted(*arguments: Any, **named: Any) -> None:
        nonlocal left
        if left > 0:  # no more, also when it is slow to end
            tidy_up_once(*arguments, **named)
        left -= 1
        if left == 0:
            is_done.set()

    async def live() -> None:
        async with app.router.lifespan_context(app):
            assert await asyncio.to_thread(is_done.wait, 60)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(housekeeping, "_tidy_up", counted)
        patch.setattr(housekeeping, "INTERVAL_S", 0.1)
        asyncio.run(live())


def test_a_gateway_that_stops_waits_for_no_housekeeping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_begun, may_end = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> None:
        has_begun.set()
        may_end.wait(60)

    async def live() -> None:
        app = make_app(GatewaySettings(data_folder=tmp_path), GatewayMetrics(CollectorRegistry()))
        async with app.router.lifespan_context(app):
            assert await asyncio.to_thread(has_begun.wait, 60)

    monkeypatch.setattr(housekeeping, "_tidy_up", hang)
    monkeypatch.setattr(housekeeping, "INTERVAL_S", 0.01)
    asyncio.run(live())
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "housekeeping"]
    assert thread.is_alive()  # nobody has waited for it
    may_end.set()
    thread.join(60)
    assert not thread.is_alive()


def ended_job(system: JobSystem, job_id: str, state: JobState, days_ago: float) -> None:
    """Writes the record and the upload of a job that came to a state some time ago."""
    job = TrainingJob(
        job_id=job_id,
        avatar_id=f"avatar-of-{job_id}",
        preset="nano",
        minutes=1,
        consent=make_consent(CONSENT),
        video_name="clip.mp4",
        created_time=datetime.now(UTC) - timedelta(days=100),
    )
    system.records.create(job)
    finished = datetime.now(UTC) - timedelta(days=days_ago) if state.is_final else None
    system.records.update(job_id, state=state, finished_time=finished)
    folder_of(system, job_id, days_ago)


def folder_of(system: JobSystem, job_id: str, days_ago: float) -> None:
    folders = JobFolders(system.data_folder / "jobs")
    folders.accept_upload(folders.new_upload_folder(), job_id)
    video = folders.upload(job_id, "clip.mp4")
    video.write_text("a video")
    then = time.time() - days_ago * 24 * 3600
    for path in (video, video.parent, folders.folder(job_id)):
        os.utime(path, (then, then))


def test_what_nobody_takes_up_expires_and_nothing_else(alone: JobSystem) -> None:
    ended_job(alone, "job-failed", JobState.FAILED, 31)
    ended_job(alone, "job-canceled", JobState.CANCELED, 31)
    ended_job(alone, "job-recent", JobState.FAILED, 29)
    ended_job(alone, "job-running", JobState.RUNNING, 31)
    ended_job(alone, "job-queued", JobState.QUEUED, 31)
    folder_of(alone, "job-unknown", 31)
    folder_of(alone, "job-missed", 29)
    folders = JobFolders(alone.data_folder / "jobs")
    everything = folders.list()
    tidy_up(alone, unfinished_jobs_days=0)
    assert folders.list() == everything
    tidy_up(alone)
    assert folders.list() == ["job-missed", "job-queued", "job-recent", "job-running"]
    left = {job.job_id for job in alone.records.list()}
    assert left == {"job-queued", "job-recent", "job-running"}
    assert [*alone.redis.scan_iter("styleavatar:job:job-failed*")] == []
    assert alone.records.find_deleted("avatar-of-job-failed") == "job-failed"


def test_a_redis_that_lost_its_data_costs_nobody_his_files(
    alone: JobSystem, caplog: pytest.LogCaptureFixture
) -> None:
    folder_of(alone, "job-unknown", 31)
    tidy_up(alone)
    assert JobFolders(alone.data_folder / "jobs").list() == ["job-unknown"]
    assert "STYLEAVATAR_GATEWAY_UNFINISHED_JOBS_DAYS" in caplog.text
    ended_job(alone, "job-new", JobState.QUEUED, 0)
    tidy_up(alone)
    assert JobFolders(alone.data_folder / "jobs").list() == ["job-new"]


def test_an_avatar_whose_deletion_was_broken_off_goes_and_that_of_an_expired_job_stays(
    alone: JobSystem, tmp_path: Path
) -> None:
    store = AvatarStore(alone.data_folder / "avatars")
    done, failed = JobState.SUCCEEDED, JobState.FAILED
    for name, state in {"job-done": done, "job-failed": failed, "job-other": done}.items():
        ended_job(alone, name, state, 31)
        store.publish(write_fake_bundle(tmp_path / name, mark=1), f"avatar-of-{name}")
    alone.records.delete("job-done")  # whoever deletes it dies here
    tidy_up(alone)
    assert alone.records.find_deleted("avatar-of-job-failed") == "job-failed"  # it has expired
    assert store.list() == ["avatar-of-job-failed", "avatar-of-job-other"]


def test_an_avatar_is_gone_although_its_files_cannot_be_removed(
    alone: JobSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = GatewaySettings(redis_url=alone.redis_url, data_folder=alone.data_folder)
    app = make_app(settings, GatewayMetrics(CollectorRegistry()))
    ended_job(alone, "job-done", JobState.SUCCEEDED, 0)
    store = AvatarStore(alone.data_folder / "avatars")
    store.publish(write_fake_bundle(tmp_path / "bundle", mark=1), "avatar-of-job-done")

    def refuse(*_: object) -> None:
        raise PermissionError("the disk takes no changes")

    async def delete() -> int:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            return (await http.delete("/v1/avatars/avatar-of-job-done")).status_code

    with monkeypatch.context() as patch:
        patch.setattr(JobFolders, "delete", refuse)
        assert asyncio.run(delete()) >= 500
    assert store.list() == []
    assert asyncio.run(delete()) == 204
    assert JobFolders(alone.data_folder / "jobs").list() == []


def test_a_job_that_is_retried_meanwhile_does_not_expire(
    alone: JobSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended_job(alone, "job-failed", JobState.FAILED, 31)
    parse = JobRecords._parse

    def retry_in_between(job_id: str, text: bytes | None) -> TrainingJob:
        with monkeypatch.context() as patch:
            patch.setattr(JobRecords, "_parse", staticmethod(parse))
            alone.records.update(job_id, state=JobState.QUEUED)
        return parse(job_id, text)

    with monkeypatch.context() as patch:
        patch.setattr(JobRecords, "_parse", staticmethod(retry_in_between))
        assert not alone.records.delete_ended("job-failed", before=datetime.now(UTC))
    assert alone.records.get("job-failed").state is JobState.QUEUED


def test_without_a_trainer_too_the_deleted_leave_the_append_only_file(
    alone: JobSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_kept(job_id: str) -> bool:
        files = [path for path in alone.data_folder.rglob("*.aof") if path.is_file()]
        assert files
        return any(f":job:{job_id}".encode() in path.read_bytes() for path in files)

    def be_busy(*_: object) -> None:
        raise ResponseError("Background append only file rewriting already in progress")

    ended_job(alone, "job-first", JobState.FAILED, 0)
    with monkeypatch.context() as patch:
        patch.setattr("redis.Redis.bgrewriteaof", be_busy)
        alone.records.delete("job-first")
    assert is_kept("job-first")
    tidy_up(alone, rounds=2)
    wait_for(lambda: not is_kept("job-first"))


def test_a_job_whose_video_is_gone_cannot_be_retried(system: JobSystem, clip: Path) -> None:
    job_id, avatar_id = start_job(system, clip)
    system.http.post(f"/v1/training-jobs/{job_id}:cancel")
    JobFolders(system.data_folder / "jobs").delete(job_id)
    answer = system.http.post(f"/v1/training-jobs/{job_id}:retry")
    assert (answer.status_code, answer.json()["reason"]) == (409, "UPLOAD_GONE")
    assert "upload it again" in answer.json()["detail"]
    assert system.records.get(job_id).state is JobState.CANCELED
    system.http.delete(f"/v1/avatars/{avatar_id}")
