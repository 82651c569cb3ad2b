# SPDX-License-Identifier: Apache-2.0
"""What the gateway makes of odd requests, and of a Redis or a disk that fails in part."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
import pytest

from services.common.housekeeping import remove_expired
from services.common.job_queue import training_queue
from services.common.job_records import events_key
from services.common.jobs import JobState
from services.common.storage import AvatarStore, JobFolders
from tests.fakes.bundle import write_fake_bundle
from tests.integration.job_system import CONSENT, JobSystem, events, start_job


def test_methods_that_nobody_knows_are_counted_as_one(system: JobSystem) -> None:
    for method in ("LOCK", "MKCOL", "PROPFIND"):
        assert system.http.request(method, "/healthz").status_code == 405
    counted = system.http.get("/metrics").text
    methods = set(re.findall(r'requests_total{method="(\w+)"', counted))
    assert "other" in methods
    assert methods <= {"GET", "HEAD", "POST", "DELETE", "other"}


def test_a_redis_that_takes_no_writes_is_away(system: JobSystem, clip: Path) -> None:
    system.redis.config_set("maxmemory", "1")
    try:
        answer = system.upload(clip)
        ready = system.http.get("/readyz")
        parts = {part["name"]: part for part in system.http.get("/v1/system").json()}
    finally:
        system.redis.config_set("maxmemory", "0")
    assert (answer.status_code, answer.json()["reason"]) == (503, "QUEUE_AWAY")
    assert ready.status_code == 503
    assert "takes no writes" in ready.json()["status"]
    assert not parts["redis"]["is_healthy"]
    assert system.http.get("/readyz").status_code == 200
    assert list((system.data_folder / "jobs").iterdir()) == []


def test_an_upload_that_finds_no_room(system: JobSystem, clip: Path, tmp_path: Path) -> None:
    gateway = psutil.Process(system.gateway_process.pid)
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(4_000_000))
    limits = gateway.rlimit(psutil.RLIMIT_FSIZE)
    gateway.rlimit(psutil.RLIMIT_FSIZE, (2_000_000, limits[1]))  # writing more fails, as on ENOSPC
    try:
        answer = system.upload(large)
    finally:
        gateway.rlimit(psutil.RLIMIT_FSIZE, limits)
    assert (answer.status_code, answer.json()["reason"]) == (507, "NOT_WRITTEN")
    assert "too large" in answer.json()["detail"]
    assert str(system.data_folder) not in answer.text
    assert list((system.data_folder / "jobs").iterdir()) == []
    assert system.stack_traces() == ""


def test_an_avatar_that_finds_no_room_to_be_packed(system: JobSystem, tmp_path: Path) -> None:
    gateway = psutil.Process(system.gateway_process.pid)
    store = AvatarStore(system.data_folder / "avatars")
    store.publish(write_fake_bundle(tmp_path / "bundle", mark=1), "packed")
    limits = gateway.rlimit(psutil.RLIMIT_FSIZE)
    gateway.rlimit(psutil.RLIMIT_FSIZE, (200, limits[1]))
    try:
        answer = system.http.get("/v1/avatars/packed/bundle")
    finally:
        gateway.rlimit(psutil.RLIMIT_FSIZE, limits)
        store.delete("packed")
    assert (answer.status_code, answer.json()["reason"]) == (507, "NOT_WRITTEN")
    assert "too large" in answer.json()["detail"]
    assert system.stack_traces() == ""


def test_an_event_stream_that_redis_fails_ends_well_and_is_taken_up_again(
    system: JobSystem, clip: Path
) -> None:
    job_id, avatar_id = start_job(system, clip)
    key = events_key(job_id)
    system.redis.rename(key, f"{key}:kept")
    system.redis.set(key, "no stream")
    assert events(system, job_id) == []
    system.redis.rename(f"{key}:kept", key)
    assert system.http.post(f"/v1/training-jobs/{job_id}:cancel").json()["state"] == "CANCELED"
    assert [name for _, name, _ in events(system, job_id)] == ["progress", "progress", "end"]
    assert system.http.delete(f"/v1/avatars/{avatar_id}").status_code == 204
    assert system.stack_traces() == ""


def test_many_follow_a_job_to_its_end(system: JobSystem, clip: Path) -> None:
    job_id, avatar_id = start_job(system, clip)
    count, begun = 130, asyncio.Semaphore(0)

    async def follow(client: httpx.AsyncClient) -> list[str]:
        names = []
        async with client.stream("GET", f"/v1/training-jobs/{job_id}/events") as answer:
            async for line in answer.aiter_lines():
                if line.startswith("event: "):
                    names.append(line.removeprefix("event: "))
                    begun.release()
        return names

    async def scenario() -> list[list[str]]:
        limits = httpx.Limits(max_connections=None)
        base_url = system.http.base_url
        async with (
            httpx.AsyncClient(base_url=base_url, limits=limits, timeout=60) as client,
            asyncio.timeout(60),
        ):
            following = [asyncio.create_task(follow(client)) for _ in range(count)]
            for _ in following:
                await begun.acquire()
            answer = await client.delete(f"/v1/avatars/{avatar_id}")
            assert answer.status_code == 204
            return await asyncio.gather(*following)

    assert asyncio.run(scenario()) == [["progress", "deleted"]] * count
    assert system.stack_traces() == ""


def test_a_name_of_long_letters(system: JobSystem, clip: Path, tmp_path: Path) -> None:
    form = {"consent": CONSENT, "preset": "nano", "minutes": "0.1"}
    with clip.open("rb") as file:
        files = {"video": ("𠀀" * 90 + ".mp4", file)}
        answer = system.http.post("/v1/avatars", data=form, files=files)
    assert answer.status_code == 202, answer.text
    assert system.records.get(answer.json()["job_id"]).video_name.endswith("𠀀.mp4")
    assert system.http.delete(answer.json()["links"]["avatar"]).status_code == 204


@pytest.mark.parametrize("path", ["{}:events", "{}:preview", "{}:events/events", "{}:x/events"])
def test_names_of_other_keys_are_no_jobs(system: JobSystem, clip: Path, path: str) -> None:
    job_id, avatar_id = start_job(system, clip)
    system.records.update(job_id, preview_jpeg=b"a picture")
    answer = system.http.get(f"/v1/training-jobs/{path.format(job_id)}")
    assert (answer.status_code, answer.json()["reason"]) == (404, "JOB_NOT_FOUND")
    assert system.http.delete(f"/v1/avatars/{avatar_id}").status_code == 204


@pytest.mark.parametrize("event_id", ["9" * 20, f"1-{2**64}", "one"])
def test_ids_that_no_event_has(system: JobSystem, clip: Path, event_id: str) -> None:
    job_id, avatar_id = start_job(system, clip)
    url, headers = f"/v1/training-jobs/{job_id}/events", {"Last-Event-ID": event_id}
    answer = system.http.get(url, headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (400, "INVALID_INPUT")
    assert system.http.delete(f"/v1/avatars/{avatar_id}").status_code == 204


def test_a_record_that_cannot_be_read_hides_no_other(system: JobSystem, clip: Path) -> None:
    damaged, _ = start_job(system, clip)
    job_id, avatar_id = start_job(system, clip)
    system.redis.set(f"styleavatar:job:{damaged}", '{"state": "UNHEARD_OF"}')
    assert [job["job_id"] for job in system.http.get("/v1/training-jobs").json()] == [job_id]
    answer = system.http.get(f"/v1/training-jobs/{damaged}")
    assert (answer.status_code, answer.json()["reason"]) == (503, "ASSET_UNUSABLE")
    folders = JobFolders(system.data_folder / "jobs")
    remove_expired(system.records, folders, timedelta(0))
    assert folders.list() == sorted([damaged, job_id])
    assert system.http.delete(f"/v1/avatars/{avatar_id}").status_code == 204
    assert damaged in system.log_path.read_text()
    system.start_trainer()
    system.stop_trainers()
    system.records.delete(damaged)
    folders.delete(damaged)
    assert system.stack_traces() == ""


def test_events_that_cannot_be_read_are_left_out(system: JobSystem, clip: Path) -> None:
    job_id, avatar_id = start_job(system, clip)
    system.redis.xadd(events_key(job_id), {"job": '{"state": "UNHEARD_OF"}'})
    assert system.http.post(f"/v1/training-jobs/{job_id}:cancel").json()["state"] == "CANCELED"
    assert [name for _, name, _ in events(system, job_id)] == ["progress", "progress", "end"]
    assert "an event is left out" in system.log_path.read_text()
    assert system.http.delete(f"/v1/avatars/{avatar_id}").status_code == 204
    assert system.stack_traces() == ""


def test_a_stream_of_events_ends_well_when_its_record_can_no_longer_be_read(
    system: JobSystem, clip: Path
) -> None:
    job_id, avatar_id = start_job(system, clip)
    key = f"styleavatar:job:{job_id}"
    kept = system.redis.get(key)
    with system.http.stream("GET", f"/v1/training-jobs/{job_id}/events") as answer:
        lines = answer.iter_lines()
        assert any(line.startswith("event: progress") for line in lines)
        system.redis.set(key, "{")
        assert not any(line.startswith("event:") for line in lines)
    system.redis.set(key, kept)
    assert system.http.delete(f"/v1/avatars/{avatar_id}").status_code == 204
    assert system.stack_traces() == ""


def test_an_upload_that_cannot_be_queued_now_is_trained_once(system: JobSystem, clip: Path) -> None:
    key = training_queue(system.redis).intermediate_queue_key
    system.redis.set(key, "not a list")  # the records can be written, the queue cannot
    try:
        job_id, avatar_id = start_job(system, clip)
        assert not system.is_in_queue(job_id)
    finally:
        system.redis.delete(key)
    # As if a minute had passed, in which a trainer leaves it to the gateway to queue its jobs.
    system.records.update(job_id, created_time=datetime.now(UTC) - timedelta(minutes=2))
    system.start_trainer()
    finished = system.wait_until(job_id, lambda job: job.state.is_final)
    assert (finished.state, finished.attempt) == (JobState.SUCCEEDED, 1)
    system.stop_trainers()
    assert system.http.delete(f"/v1/avatars/{avatar_id}").status_code == 204
