# SPDX-License-Identifier: Apache-2.0
"""Starts the gateway: ``python -m services.gateway``."""

from __future__ import annotations

import signal
import sys

import uvicorn

from services.common.command import run_service
from services.gateway.app import make_app
from services.gateway.settings import GatewaySettings


def main() -> int:
    """Serves until told to end; returns the exit code."""
    return run_service("gateway", GatewaySettings, _serve)


def _serve(settings: GatewaySettings) -> None:
    app = make_app(settings)
    # uvicorn ends on these signals and then raises them again: the second time nobody should die.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=settings.drain_timeout_s,
    )


if __name__ == "__main__":
    sys.exit(main())
