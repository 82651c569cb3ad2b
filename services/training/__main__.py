# SPDX-License-Identifier: Apache-2.0
"""Starts the trainer: ``python -m services.training``."""

from __future__ import annotations

import sys

from services.common.logging import configure_logging
from services.training.server import run
from services.training.settings import TrainingSettings
from styleavatar_core.errors import StyleAvatarError


def main() -> int:
    """Runs until told to end; returns the exit code."""
    try:
        settings = TrainingSettings()
        configure_logging("trainer", settings.log_level, settings.log_format)
        run(settings)
    except StyleAvatarError as error:
        sys.stderr.write(f"trainer: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
