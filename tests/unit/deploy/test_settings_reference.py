# SPDX-License-Identifier: Apache-2.0
"""`.env.example` and docs/deployment.md list the settings that the code has."""

from __future__ import annotations

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
