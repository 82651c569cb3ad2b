# SPDX-License-Identifier: Apache-2.0
"""Settings refuse what they do not know, and say which variable is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.gateway.settings import GatewaySettings
from services.rendering.settings import RenderingSettings
from services.training.settings import TrainingSettings
from styleavatar_core.errors import InvalidInputError

CLIENTS = Path(__file__).resolve().parents[4] / "clients"


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


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("STYLEAVATAR_API_KEY_FILE", "STYLEAVATAR_API_KEYS_FILE"),
        ("STYLEAVATAR_GATEWY_PORT", "STYLEAVATAR_GATEWAY_PORT"),
        ("STYLEAVATAR_LOGLEVEL", "STYLEAVATAR_LOG_LEVEL"),
    ],
)
def test_a_misspelt_variable_without_a_services_prefix_is_refused_too(
    misspelt: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(misspelt, "1")
    with pytest.raises(InvalidInputError, match=f"{misspelt}; did you mean {meant}") as caught:
        GatewaySettings()
    assert caught.value.reason == "BAD_SETTING"


def test_no_service_guesses_at_what_is_like_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEAVATAR_GATEWY_PORT", "1")
    with pytest.raises(InvalidInputError, match="unknown environment variable") as caught:
        TrainingSettings()
    assert "did you mean" not in str(caught.value)


def test_variables_of_the_clients_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = "".join(path.read_text() for path in CLIENTS.rglob("*.py"))
    variables = set(re.findall(r"\bSTYLEAVATAR_[A-Z_]+", sources))
    assert len(variables) > 1
    for variable in variables:
        monkeypatch.setenv(variable, "localhost")
    GatewaySettings()


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = TrainingSettings()
    for variable in TrainingSettings.variable_names().values():
        monkeypatch.setenv(variable, "")
    assert TrainingSettings() == expected


@pytest.mark.parametrize(
    "variable",
    [
        "STYLEAVATAR_API_KEYS_FILE",
        "STYLEAVATAR_TLS_CERTIFICATE",
        "STYLEAVATAR_TLS_KEY",
        "STYLEAVATAR_TLS_CLIENT_CA",
        "STYLEAVATAR_TLS_CA",
    ],
)
def test_protection_is_not_switched_off_by_an_empty_variable(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "")
    with pytest.raises(InvalidInputError, match=f"{variable} is empty") as caught:
        RenderingSettings()
    assert caught.value.reason == "BAD_SETTING"
    TrainingSettings()  # it protects nothing with them


def test_variables_of_other_services_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEAVATAR_TRAINING_LEASE_S", "30")
    GatewaySettings()
    assert TrainingSettings().lease_s == 30


def test_a_bad_value_shows_no_secret_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:secret@redis:6379/0")
    with pytest.raises(InvalidInputError, match="STYLEAVATAR_TRAINING_LEASE_S") as caught:
        TrainingSettings(lease_s=4)
    assert "secret" not in str(caught.value)


def test_a_bad_value_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEAVATAR_GATEWAY_PORT", "70000")
    with pytest.raises(InvalidInputError, match=r"STYLEAVATAR_GATEWAY_PORT.*70000"):
        GatewaySettings()
