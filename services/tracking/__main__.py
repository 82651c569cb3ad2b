# SPDX-License-Identifier: Apache-2.0
"""Runs the tracking service: ``python -m services.tracking``."""

from __future__ import annotations

import asyncio
import sys

from services.common.logging import configure_logging
from services.tracking.server import run
from services.tracking.settings import TrackingSettings
from styleavatar_core.errors import StyleAvatarError


def main() -> int:
    """Runs until a signal; returns the exit code."""
    try:
        settings = TrackingSettings()
        configure_logging("tracking", settings.log_level, settings.log_format)
        asyncio.run(run(settings))
    except StyleAvatarError as error:
        sys.stderr.write(f"tracking: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
