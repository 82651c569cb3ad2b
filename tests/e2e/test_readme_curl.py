# SPDX-License-Identifier: Apache-2.0
"""The README's curl lines upload a clip, follow the job by events and fetch the avatar."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from styleavatar_core.avatar.bundle import read_bundle

pytestmark = [
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed here"),
    pytest.mark.timeout(900),
]


def events(folder: Path) -> list[dict]:
    lines = (folder / "events.txt").read_text().splitlines()
    return [json.loads(line[5:]) for line in lines if line.startswith("data:")]


def test_upload_is_accepted_with_ids(curl_folder: Path) -> None:
    answer = json.loads((curl_folder / "answer.json").read_text())
    assert answer["avatar_id"].startswith("avatar-")
    assert answer["job_id"].startswith("job-")


def test_events_tell_every_stage_and_end_with_success(curl_folder: Path) -> None:
    jobs = events(curl_folder)
    stages = {job["progress"]["stage"] for job in jobs if job["progress"]}
    assert {"tracking", "rendering", "training", "export"} <= stages
    assert jobs[-1]["state"] == "SUCCEEDED"
    assert all(job["state"] != "SUCCEEDED" for job in jobs[:-1])


def test_fetched_bundle_is_whole_and_carries_the_consent(curl_folder: Path) -> None:
    bundle = read_bundle(curl_folder / "avatar.zip", verify=True)
    assert bundle.manifest.preset == "nano"
    assert "Public-domain NASA portrait" in bundle.manifest.consent.statement
    assert bundle.manifest.consent.subject == "Eileen Collins"
