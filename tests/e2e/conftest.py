# SPDX-License-Identifier: Apache-2.0
"""The whole system, started once, and an avatar made by it as the README says."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from styleavatar_client.rest import GatewayClient

from services.supervisor.settings import SupervisorSettings
from services.supervisor.supervisor import Supervisor
from styleavatar_core.sample.clip import SAMPLE_CONSENT, SampleClip
from tests.e2e.readme import block_with

TRAIN_MINUTES = 0.1


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    """All services on free ports, with an embedded Redis."""
    folder = tmp_path_factory.mktemp("system")
    ports = {name: 0 for name in SupervisorSettings.model_fields if name.endswith("_port")}
    settings = SupervisorSettings(
        data_folder=folder / "data", log_folder=folder / "logs", redis_url=None, **ports
    )
    with Supervisor(settings) as supervisor:
        supervisor.wait_ready(180)
        yield supervisor


@pytest.fixture(scope="session")
def curl_folder(
    system: Supervisor, sample_clip: SampleClip, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Where the README's curl lines were run: answer.json, events.txt and avatar.zip."""
    folder = tmp_path_factory.mktemp("curl")
    shutil.copy(sample_clip.path, folder / "sample.mp4")
    script = block_with("curl").replace("http://localhost:8080", system.endpoints.gateway_url)
    script = script.replace("/events\n", "/events > events.txt\n")
    subprocess.run(["sh", "-eu", "-c", script], cwd=folder, check=True, timeout=600)
    return folder


@pytest.fixture(scope="session")
def avatar_id(system: Supervisor, sample_clip: SampleClip) -> str:
    """A ready avatar of the sample clip, made through the gateway."""
    with GatewayClient(system.endpoints.gateway_url) as client:
        accepted = client.create_avatar(
            sample_clip.path, SAMPLE_CONSENT, preset="nano", minutes=TRAIN_MINUTES
        )
        jobs = list(client.follow_job(accepted["job_id"]))
    assert jobs[-1]["state"] == "SUCCEEDED", jobs[-1]["error"]
    return str(accepted["avatar_id"])
