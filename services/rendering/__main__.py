# SPDX-License-Identifier: Apache-2.0
"""Runs the rendering service: ``python -m services.rendering``."""

from __future__ import annotations

import asyncio
import sys

from services.common.command import run_service
from services.rendering.server import run
from services.rendering.settings import RenderingSettings


def main() -> int:
    """Runs until a signal; returns the exit code."""
    return run_service("rendering", RenderingSettings, lambda settings: asyncio.run(run(settings)))


if __name__ == "__main__":
    sys.exit(main())
