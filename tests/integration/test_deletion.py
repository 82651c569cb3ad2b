# SPDX-License-Identifier: Apache-2.0
"""What is deleted is gone, also when the first try is broken off and when nobody deletes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.common.job_queue import training_queue
from services.common.storage import AvatarStore
from tests.fakes.bundle import write_fake_bundle
from tests.integration.job_system import JobSystem, leftovers, serving, start_job, write_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=6)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobSystem]:
    with serving(tmp_path_factory.mktemp("data")) as system:
        yield system


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


def test_a_queue_that_fails_keeps_no_files(system: JobSystem, clip: Path) -> None:
    job_id, avatar_id = start_job(system, clip)
    queue = training_queue(system.redis)
    system.redis.set(queue.intermediate_queue_key, "not a list")  # rq's part of it fails
    assert system.http.delete(f"/v1/avatars/{avatar_id}").status_code >= 500
    assert leftovers(system, job_id, avatar_id) == []
    system.redis.delete(queue.intermediate_queue_key)
    assert system.http.delete(f"/v1/avatars/{avatar_id}").status_code == 204
