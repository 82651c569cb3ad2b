# SPDX-License-Identifier: Apache-2.0
"""Starts the trainer: ``python -m services.training``."""

from __future__ import annotations

import sys

from services.common.command import run_service
from services.training.server import run
from services.training.settings import TrainingSettings


def main() -> int:
    """Runs until a signal; returns the exit code."""
    return run_service("trainer", TrainingSettings, run)


if __name__ == "__main__":
    sys.exit(main())
