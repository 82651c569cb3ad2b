# SPDX-License-Identifier: Apache-2.0
"""Settings refuse what they do not know, and say which variable is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.gateway.settings import GatewaySettings
from services.training.settings import TrainingSettings
from styleavatar_core.errors import InvalidInputError


def test_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEAVATAR_DATA", "data")
    monkeypatch.setenv("STYLEAVATAR_GATEWAY_PORT", "1234")
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere")
    settings = GatewaySettings()
    assert (settings.port, settings.redis_url) == (1234, "redis://elsewhere")
    assert settings.jobs_folder == Path("data/jobs")


def test_a_misspelt_variable_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEAVATAR_GATEWAY_PORTT", "1")
    with pytest.raises(InvalidInputError, match="did you mean STYLEAVATAR_GATEWAY_PORT"):
        GatewaySettings()


def test_variables_of_other_services_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEAVATAR_TRAINING_LEASE_S", "30")
    GatewaySettings()
    assert TrainingSettings().lease_s == 30


@pytest.mark.parametrize("wrong", [{"lease_s": 10}, {"heartbeat_interval_s": 30}])
def test_a_lease_outlasts_two_signs_of_life(
    wrong: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:secret@redis:6379/0")
    with pytest.raises(InvalidInputError, match="STYLEAVATAR_TRAINING_LEASE_S=") as caught:
        TrainingSettings(**wrong)
    assert "secret" not in str(caught.value)


def test_a_bad_value_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEAVATAR_GATEWAY_PORT", "70000")
    with pytest.raises(InvalidInputError, match=r"STYLEAVATAR_GATEWAY_PORT.*70000"):
        GatewaySettings()
