# SPDX-License-Identifier: Apache-2.0
"""What ``python -m services.NAME`` does for every service: settings, logging, exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from services.common.logging import configure_logging
from services.common.settings import ServiceSettings
from styleavatar_core.errors import StyleAvatarError

SettingsT = TypeVar("SettingsT", bound=ServiceSettings)

# What shells and orchestrators take for "called wrongly": starting again does not help.
UNUSABLE_CODE = 2


def run_service(name: str, settings_type: type[SettingsT], run: Callable[[SettingsT], None]) -> int:
    """Runs a service until it is told to end.

    Args:
        name: Stands in the log, and before the sentence when it cannot run.
        settings_type: Reads its settings from the environment.
        run: Serves until a signal.

    Returns:
        The exit code.
    """
    try:
        settings = settings_type()
        configure_logging(name, settings.log_level, settings.log_format)
        run(settings)
    except StyleAvatarError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return UNUSABLE_CODE
    return 0
