# SPDX-License-Identifier: Apache-2.0
"""What the gateway makes of odd requests, and of a Redis or a disk that fails in part."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.integration.job_system import CONSENT, JobSystem, serving, write_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=6)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobSystem]:
    with serving(tmp_path_factory.mktemp("data")) as system:
        yield system


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


def test_a_name_of_long_letters(system: JobSystem, clip: Path, tmp_path: Path) -> None:
    form = {"consent": CONSENT, "preset": "nano", "minutes": "0.1"}
    with clip.open("rb") as file:
        files = {"video": ("𠀀" * 90 + ".mp4", file)}
        answer = system.http.post("/v1/avatars", data=form, files=files)
    assert answer.status_code == 202, answer.text
    assert system.records.get(answer.json()["job_id"]).video_name.endswith("𠀀.mp4")
    assert system.http.delete(answer.json()["links"]["avatar"]).status_code == 204
