# SPDX-License-Identifier: Apache-2.0
"""`.env.example` and docs/deployment.md list the settings that the code has."""

from __future__ import annotations

from services.rendering.settings import RenderingSettings
from services.tracking.settings import TrackingSettings
from services.training.settings import TrainingSettings
from tools import settings_reference as reference


def test_env_example_is_up_to_date() -> None:
    assert reference.ENV_EXAMPLE.read_text() == reference.env_example(), "run `make docs`"


def test_table_of_the_deployment_page_is_up_to_date() -> None:
    page = reference.DEPLOYMENT_PAGE.read_text()
    assert page == reference.with_table(page), "run `make docs`"


def test_every_setting_says_what_it_is() -> None:
    rows = [row for rows in reference.settings_rows().values() for row in rows]
    assert len(rows) > 20
    assert [variable for variable, _, meaning in rows if len(meaning) < 8] == []


def test_what_is_for_tests_only_is_not_offered() -> None:
    rows = [row for rows in reference.settings_rows().values() for row in rows]
    assert [variable for variable, _, meaning in rows if "tests" in meaning] == []
    classes = (TrackingSettings, RenderingSettings, TrainingSettings)
    assert {variable for each in classes for variable in each.explain()} >= reference.HOOKS


def test_redis_is_for_those_who_use_it() -> None:
    rows = reference.settings_rows().items()
    users = {service for service, own in rows if "REDIS_URL" in {name for name, *_ in own}}
    assert users == {"serve", "gateway", "trainer"}
