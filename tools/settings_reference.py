# SPDX-License-Identifier: Apache-2.0
"""Writes `.env.example` and the table of settings in docs/deployment.md from the settings classes.

``python -m tools.settings_reference`` writes both; a test fails when they differ from the code.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from services.common.settings import ServiceSettings

ROOT = Path(__file__).resolve().parents[1]
ENV_EXAMPLE = ROOT / ".env.example"
DEPLOYMENT_PAGE = ROOT / "docs" / "deployment.md"
TABLE_BEGIN, TABLE_END = "<!-- settings: begin -->", "<!-- settings: end -->"
CLASSES = {
    "serve": "services.supervisor.settings:SupervisorSettings",
    "gateway": "services.gateway.settings:GatewaySettings",
    "tracking": "services.tracking.settings:TrackingSettings",
    "rendering": "services.rendering.settings:RenderingSettings",
    "trainer": "services.training.settings:TrainingSettings",
}
# What tests put in the place of the real thing; nobody else is to set them.
HOOKS = {
    "STYLEAVATAR_TRACKING_TRACKER",
    "STYLEAVATAR_RENDERING_RENDERER",
    "STYLEAVATAR_TRAINING_MAKER",
}

Row = tuple[str, str, str]


def settings_rows() -> dict[str, list[Row]]:
    """Returns, by service (``all`` first), the variable, default and meaning of every setting."""
    rows = {"all": _rows(ServiceSettings, skip=set())}
    shared = HOOKS | {variable for variable, _, _ in rows["all"]}
    for service, name in CLASSES.items():
        module, _, class_name = name.partition(":")
        settings = getattr(importlib.import_module(module), class_name)
        rows[service] = _rows(settings, skip=shared)
    return rows


def env_example() -> str:
    """Returns the text of `.env.example`: every variable with its default, commented out."""
    lines = ["# Every variable that the services read, with its default. Uncomment to change.", ""]
    for service, rows in settings_rows().items():
        lines += [f"# --- {'all services' if service == 'all' else service} ---"]
        for variable, default, meaning in rows:
            lines += [f"# {meaning}", f"# {variable}={default}"]
        lines += [""]
    return "\n".join(lines)


def settings_table() -> str:
    """Returns the Markdown table of docs/deployment.md."""
    lines = ["| service | variable | default | meaning |", "|---|---|---|---|"]
    for service, rows in settings_rows().items():
        for variable, default, meaning in rows:
            shown = f"`{default}`" if default else ""
            lines.append(f"| {service} | `{variable}` | {shown} | {meaning} |")
    return "\n".join(lines)


def with_table(page: str) -> str:
    """Returns the deployment page with the table between its marks renewed."""
    before, rest = page.split(TABLE_BEGIN)
    _, after = rest.split(TABLE_END)
    return f"{before}{TABLE_BEGIN}\n{settings_table()}\n{TABLE_END}{after}"


def main() -> None:
    """Writes both files."""
    ENV_EXAMPLE.write_text(env_example())
    DEPLOYMENT_PAGE.write_text(with_table(DEPLOYMENT_PAGE.read_text()))


def _rows(settings: type[ServiceSettings], skip: set[str]) -> list[Row]:
    rows = settings.explain().items()
    return [(variable, *told) for variable, told in rows if variable not in skip]


if __name__ == "__main__":
    main()
