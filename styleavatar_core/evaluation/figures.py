# SPDX-License-Identifier: Apache-2.0
"""Reports of measured figures: a table for people, one JSON shape for programs."""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from styleavatar_core.cores import processor_name, usable_core_count


def machine() -> dict[str, Any]:
    """Describes the machine that a figure was measured on.

    Returns:
        ``cpu`` (its name), ``cores`` (those this process may use), ``gpu`` (name or None) and
        ``memory_gib``.
    """
    return {
        "cpu": processor_name(),
        "cores": usable_core_count(),
        "gpu": _gpu_name(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
    }


def build_report(
    benchmark: str, figures: Mapping[str, float | None], options: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Puts figures into the one shape that all reports have.

    Args:
        benchmark: Name of the benchmark, such as ``demo``.
        figures: Values by dotted name ending in the unit. What could not be measured (None or
            not finite) is left out: a missing figure is honest, a zero is not.
        options: The options that it ran with.
    """
    return {
        "benchmark": benchmark,
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "options": options or {},
        "figures": {
            name: round(float(value), 4)
            for name, value in figures.items()
            if value is not None and math.isfinite(value)
        },
    }


def write_report(report: dict[str, Any], path: Path) -> None:
    """Writes a report as JSON, creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")


def print_report(report: dict[str, Any], console: Console | None = None) -> None:
    """Prints a report as a table, with the machine that it was measured on."""
    described = report["machine"]
    console = console or Console()
    console.print(
        f"[bold]{report['benchmark']}[/bold] · {described['cpu']}, {described['cores']} cores"
        + (f", {described['gpu']}" if described["gpu"] else "")
    )
    table = Table()
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in report["figures"].items():
        table.add_row(name, f"{value:,.0f}" if value == round(value) else f"{value:,.3f}")
    console.print(table)


def _gpu_name() -> str | None:
    names = _output_of("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return names.splitlines()[0] if names else None


def _commit() -> str | None:
    return _output_of("git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD")


def _output_of(*command: str) -> str | None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None
