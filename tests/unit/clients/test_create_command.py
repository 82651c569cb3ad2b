# SPDX-License-Identifier: Apache-2.0
"""What ``create`` knows by itself, and what it tells people."""

from __future__ import annotations

from pathlib import Path

import pytest
from styleavatar_client import create_command
from styleavatar_client.create_command import Preset
from styleavatar_client.rest import GatewayClient
from typer.testing import CliRunner, Result

from services.gateway.schemas import DEFAULT_MINUTES
from styleavatar_core.cli.main import build_app
from styleavatar_core.networks import PRESETS


def create(folder: Path, *options: str) -> Result:
    video = folder / "me.mp4"
    video.touch()
    return CliRunner().invoke(build_app(), ["create", str(video), *options])


def test_presets_are_those_of_the_core() -> None:
    """The client knows no core and the gateway no torch: their lists must not drift apart."""
    assert set(Preset) == set(DEFAULT_MINUTES) == set(PRESETS)


def test_brackets_in_a_refusal_are_told_as_they_are(tmp_path: Path) -> None:
    result = create(tmp_path, "--gateway", "http://127.0.0.1:1/[/me]")
    assert result.exit_code == 2, result.exception
    assert "No gateway answers at http://127.0.0.1:1/[/me]" in result.stderr


def test_who_stops_following_is_told_that_the_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    accepted = {"avatar_id": "avatar-1", "job_id": "job-1"}
    monkeypatch.setattr(GatewayClient, "tracking_address", lambda _: "127.0.0.1:2")
    monkeypatch.setattr(GatewayClient, "create_avatar", lambda *_, **__: accepted)
    monkeypatch.setattr(create_command, "follow", interrupt)
    result = create(tmp_path, "--gateway", "http://127.0.0.1:1/")
    assert result.exit_code == 130
    assert "the training goes on" in result.stderr
    assert "curl -X POST http://127.0.0.1:1/v1/training-jobs/job-1:cancel" in result.stderr
