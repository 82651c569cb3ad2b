# SPDX-License-Identifier: Apache-2.0
"""One run of a job in this process, with a real Redis: what becomes of a job when its end fails."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.common.job_records import JobRecords
from services.common.jobs import JobState, TrainingJob
from services.common.storage import AvatarStore, JobFolders
from services.training.reporting import JobReporter
from services.training.tasks import TrainingRun
from styleavatar_core.errors import TrainingCanceled
from styleavatar_core.provenance.consent import make_consent
from tests.fakes.bundle import write_fake_bundle
from tests.integration.job_system import CONSENT


def make_at_once(job: TrainingJob, video: Path, work: Path, reporter: JobReporter) -> Path:
    return write_fake_bundle(work / "bundle", mark=1, consent=job.consent)


def create_job(records: JobRecords) -> None:
    records.create(
        TrainingJob(
            job_id="job-1",
            avatar_id="avatar-1",
            preset="nano",
            minutes=1,
            consent=make_consent(CONSENT),
            created_time=datetime.now(UTC),
        )
    )


def test_an_avatar_that_cannot_be_written_is_no_want_of_memory(
    records: JobRecords, tmp_path: Path
) -> None:
    create_job(records)
    store = AvatarStore(tmp_path / "avatars")
    store.root.write_text("no folder")  # fails as a full disk does
    run = TrainingRun(records, JobFolders(tmp_path / "jobs"), store, reports=records)
    assert run.run("job-1", make_at_once)
    job = records.get("job-1")
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.reason == "NOT_WRITTEN"
    assert "make room" in job.error.message


def test_a_training_whose_job_was_deleted_says_so(
    records: JobRecords, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def make(job: TrainingJob, video: Path, work: Path, reporter: JobReporter) -> Path:
        records.delete(job.job_id)
        assert reporter.should_stop()
        raise TrainingCanceled("stopped")

    create_job(records)
    store = AvatarStore(tmp_path / "avatars")
    run = TrainingRun(records, JobFolders(tmp_path / "jobs"), store, reports=records)
    assert run.run("job-1", make)
    assert "the job is deleted" in caplog.text


def test_a_job_that_succeeds_is_logged_without_a_reason(
    records: JobRecords, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="services.training.tasks")
    create_job(records)
    store = AvatarStore(tmp_path / "avatars")
    run = TrainingRun(records, JobFolders(tmp_path / "jobs"), store, reports=records)
    assert run.run("job-1", make_at_once)
    (end,) = [record for record in caplog.records if record.message == "job ends"]
    assert vars(end)["state"] is JobState.SUCCEEDED
    assert "reason" not in vars(end)
