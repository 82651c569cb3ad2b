# SPDX-License-Identifier: Apache-2.0
"""Jobs from upload to avatar through real processes: events, cancel, retry, delete."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from styleavatar_client.errors import ClientError
from styleavatar_client.rest import GatewayClient
from typer.testing import CliRunner

from services.common.jobs import JobState
from styleavatar_core.cli.main import build_app
from tests.integration.job_system import (
    CONSENT,
    COUNT_STEPS,
    JobSystem,
    events,
    job_process,
    leftovers,
    start_job,
    wait_for,
)


@pytest.fixture
def system(system: JobSystem) -> Iterator[JobSystem]:
    system.maker = COUNT_STEPS
    yield system
    system.stop_trainers()


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
    assert system.http.get(f"/v1/training-jobs/{job_id}/preview.jpg").status_code == 404
    assert not (system.data_folder / "jobs" / job_id).exists()


def test_cancel_and_retry(system: JobSystem, clip: Path) -> None:
    system.start_trainer()
    job_id, avatar_id = start_job(system, clip)
    system.wait_until(job_id, lambda job: job.progress and (job.progress.step or 0) > 10)
    url = f"/v1/training-jobs/{job_id}"
    assert system.http.post(f"{url}:retry").status_code == 409
    assert system.http.post(f"{url}:cancel").json()["cancel_requested"]
    canceled = system.wait_until(job_id, lambda job: job.state.is_final)
    assert canceled.state is JobState.CANCELED
    picture = system.http.get(f"{url}/preview.jpg")
    assert (picture.content, picture.headers["x-synthetic"]) == (b"a picture", "true")
    assert system.http.post(f"{url}:cancel").status_code == 409
    assert system.http.get(f"/v1/avatars/{avatar_id}/bundle").json()["reason"] == "AVATAR_NOT_READY"
    assert system.http.post(f"{url}:retry").status_code == 202
    finished = system.wait_until(job_id, lambda job: job.state.is_final)
    assert (finished.state, finished.resume_count) == (JobState.SUCCEEDED, 0)
    told = [(name, job["state"]) for _, name, job in events(system, job_id)]
    assert ("progress", "CANCELED") in told
    assert [state for name, state in told if name == "end"] == ["SUCCEEDED"]
    assert told[-1] == ("end", "SUCCEEDED")


def test_what_is_canceled_at_the_last_moment_is_not_published(
    system: JobSystem, clip: Path
) -> None:
    system.maker = "tests.fakes.avatar_maker:cancel_late"
    system.start_trainer()
    job_id, avatar_id = start_job(system, clip)
    canceled = system.wait_until(job_id, lambda job: job.state.is_final)
    assert canceled.state is JobState.CANCELED
    assert system.http.get(f"/v1/avatars/{avatar_id}/bundle").json()["reason"] == "AVATAR_NOT_READY"


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


def test_a_job_that_hangs_is_ended_by_cancel_and_by_delete(system: JobSystem, clip: Path) -> None:
    system.maker = "tests.fakes.avatar_maker:hang"
    trainer = system.start_trainer(stop_limit_s=2, lease_s=8)
    job_id, _ = start_job(system, clip)
    system.wait_until(job_id, lambda job: job.progress)
    system.http.post(f"/v1/training-jobs/{job_id}:cancel")
    canceled = system.wait_until(job_id, lambda job: job.state.is_final)
    assert canceled.state is JobState.CANCELED

    job_id, avatar_id = start_job(system, clip)
    system.wait_until(job_id, lambda job: job.progress)
    job = job_process(trainer)
    assert system.http.delete(f"/v1/avatars/{avatar_id}").status_code == 204
    wait_for(lambda: not job.is_running())
    assert leftovers(system, job_id, avatar_id) == []
    wait_for(lambda: not system.is_in_queue(job_id))
    assert trainer.poll() is None


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


def test_the_client_cancels_retries_and_deletes(system: JobSystem, clip: Path) -> None:
    with GatewayClient(str(system.http.base_url)) as client:
        job_id, avatar_id = start_job(system, clip)
        with pytest.raises(ClientError, match="failed or canceled") as caught:
            client.retry_job(job_id)
        assert caught.value.code == "409"
        assert client.cancel_job(job_id)["state"] == "CANCELED"
        assert client.retry_job(job_id)["state"] == "QUEUED"
        client.delete_avatar(avatar_id)
        assert avatar_id not in [avatar["avatar_id"] for avatar in client.list_avatars()]
        client.delete_avatar(avatar_id)  # as after an answer that was lost
        with pytest.raises(ClientError, match="never-there") as caught:
            client.delete_avatar("never-there")
        assert (caught.value.code, caught.value.reason) == ("404", "AVATAR_NOT_FOUND")
    assert leftovers(system, job_id, avatar_id) == []


def test_create_ends_with_the_command_that_drives_the_avatar(clip: Path, tmp_path: Path) -> None:
    system = JobSystem(tmp_path)
    try:
        system.start_redis()
        system.start_gateway(tracking_address="127.0.0.1:4321")
        system.start_trainer()
        words = ["create", str(clip), "--consent", CONSENT, "--preset", "nano"]
        words += ["--gateway", str(system.http.base_url)]
        result = CliRunner().invoke(build_app(), words)
        (avatar,) = system.http.get("/v1/avatars").json()
    finally:
        system.stop()
    assert result.exit_code == 0, result.output
    options = f"--avatar {avatar['avatar_id']} --video DRIVER.mp4 --tracking 127.0.0.1:4321"
    assert f"Ready: styleavatar drive {options}\n" in result.stdout
