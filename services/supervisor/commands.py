# SPDX-License-Identifier: Apache-2.0
"""``styleavatar serve``."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from services.common.logging import configure_logging
from services.supervisor.settings import SupervisorSettings
from services.supervisor.supervisor import Supervisor
from styleavatar_core.errors import StyleAvatarError

_READY_LIMIT_S = 180.0
_LOOK_INTERVAL_S = 1.0
_DEFAULTS = SupervisorSettings.model_fields


def _default(name: str) -> str:
    """Says what a setting is unless the environment or an option says otherwise."""
    return str(_DEFAULTS[name].default)


def serve(
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of avatars, jobs and the queue.",
            show_default="STYLEAVATAR_DATA, else ~/.local/share/styleavatar",
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", show_default=_default("host"))
    ] = None,
    gateway_port: Annotated[
        int | None, typer.Option(help="HTTP port; 0: any.", show_default=_default("gateway_port"))
    ] = None,
    tracking_port: Annotated[
        int | None, typer.Option(help="gRPC port; 0: any.", show_default=_default("tracking_port"))
    ] = None,
    rendering_port: Annotated[
        int | None, typer.Option(help="gRPC port; 0: any.", show_default=_default("rendering_port"))
    ] = None,
    any_ports: Annotated[
        bool, typer.Option("--any-ports", help="Take free ports for everything not given.")
    ] = False,
    log_folder: Annotated[
        Path | None, typer.Option(help="Write the services' logs there, not to the terminal.")
    ] = None,
) -> None:
    """Run the whole system on this machine: gateway, tracking, rendering, trainer and a Redis.

    Redis is started too unless REDIS_URL is set. Ctrl-C ends all of it; a job at
    work is put back and goes on when you serve again.
    """
    given: dict[str, Any] = {
        "data_folder": data,
        "host": host,
        "gateway_port": gateway_port,
        "tracking_port": tracking_port,
        "rendering_port": rendering_port,
        "log_folder": log_folder,
    }
    values = {name: value for name, value in given.items() if value is not None}
    if any_ports:
        values = {name: 0 for name in _DEFAULTS if name.endswith("_port")} | values
    try:
        settings = SupervisorSettings(**values)
        configure_logging("serve", settings.log_level, settings.log_format)
        run(Supervisor(settings), Console())
    except StyleAvatarError as error:
        sys.stderr.write(f"styleavatar serve: {error}\n")
        raise typer.Exit(2) from error


def run(supervisor: Supervisor, console: Console) -> None:
    """Starts, says what runs where, and waits for SIGINT or SIGTERM.

    Args:
        supervisor: Not started yet.
        console: Where to say it.
    """
    told_to_end = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        told_to_end.set()

    previous = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with supervisor:
            _wait_ready(supervisor, told_to_end)
            if not told_to_end.is_set():
                console.print(table_of(supervisor))
                console.print(
                    f"Open {supervisor.endpoints.gateway_url} to see it. Ctrl-C ends it all."
                )
            while not told_to_end.wait(_LOOK_INTERVAL_S):
                supervisor.require_running()
            console.print("Ending all processes ...")
        console.print("All ended.")
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def table_of(supervisor: Supervisor) -> Table:
    """Returns what runs where, as a table."""
    table = Table("process", "address", "pid", title="StyleAvatar", title_justify="left")
    for child in supervisor.children:
        table.add_row(child.spec.name, child.spec.address, str(child.pid))
    return table


def _wait_ready(supervisor: Supervisor, told_to_end: threading.Event) -> None:
    """Waits in a thread, so that a signal ends the waiting at once."""
    failures: list[StyleAvatarError] = []
    done = threading.Event()

    def wait() -> None:
        try:
            supervisor.wait_ready(_READY_LIMIT_S)
        except StyleAvatarError as error:
            failures.append(error)
        done.set()

    threading.Thread(target=wait, name="wait-ready", daemon=True).start()
    while not done.is_set() and not told_to_end.is_set():
        done.wait(0.1)
    if failures and not told_to_end.is_set():
        raise failures[0]
