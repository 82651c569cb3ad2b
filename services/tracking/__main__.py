# SPDX-License-Identifier: Apache-2.0
"""Runs the tracking service: ``python -m services.tracking``."""

from __future__ import annotations

import asyncio
import sys

from services.common.command import run_service
from services.tracking.server import run
from services.tracking.settings import TrackingSettings


def main() -> int:
    """Runs until a signal; returns the exit code."""
    return run_service("tracking", TrackingSettings, lambda settings: asyncio.run(run(settings)))


if __name__ == "__main__":
    sys.exit(main())
