# SPDX-License-Identifier: Apache-2.0
"""``styleavatar bench``: runs the benchmarks of a source checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from styleavatar_core.errors import NotFoundError


def bench(
    names: Annotated[
        list[str] | None, typer.Argument(help="Benchmarks to run.", show_default="all")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the JSON reports.")] = Path("out/bench"),
    quick: Annotated[bool, typer.Option(help="Cheap values, for tests; never quoted.")] = False,
) -> None:
    """Run the benchmarks behind every figure that the documentation states."""
    known = available()
    if not known:
        raise NotFoundError("benchmarks run from a source checkout; change into its folder first")
    for name in names or known:
        if name not in known:
            raise NotFoundError(f"there is no benchmark '{name}'; choose of {', '.join(known)}")
    out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in names or known:
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(out / f"{name}.json")]
        if subprocess.run([*command, *(["--quick"] if quick else [])], check=False).returncode:
            failed.append(name)
    if failed:
        raise typer.Exit(1)


def available() -> list[str]:
    """Returns the benchmarks in the current folder."""
    files = sorted(Path("benchmarks").glob("*.py"))
    return [file.stem for file in files if file.stem not in ("__init__", "report")]
