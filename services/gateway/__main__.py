# SPDX-License-Identifier: Apache-2.0
"""Starts the gateway: ``python -m services.gateway``."""

from __future__ import annotations

import signal
import sys

import uvicorn

from services.common.logging import configure_logging
from services.gateway.app import make_app
from services.gateway.settings import GatewaySettings
from styleavatar_core.errors import StyleAvatarError


def main() -> int:
    """Serves until told to end; returns the exit code."""
    try:
        settings = GatewaySettings()
        configure_logging("gateway", settings.log_level, settings.log_format)
        app = make_app(settings)
    except StyleAvatarError as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 2
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
