# SPDX-License-Identifier: Apache-2.0
"""Runs the rendering service: ``python -m services.rendering``."""

from __future__ import annotations

import asyncio
import sys

from services.common.logging import configure_logging
from services.rendering.server import run
from services.rendering.settings import RenderingSettings
from styleavatar_core.errors import StyleAvatarError


def main() -> int:
    """Runs until a signal; returns the exit code."""
    try:
        settings = RenderingSettings()
        configure_logging("rendering", settings.log_level, settings.log_format)
        asyncio.run(run(settings))
    except StyleAvatarError as error:
        sys.stderr.write(f"rendering: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
