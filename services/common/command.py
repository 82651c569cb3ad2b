# SPDX-License-Identifier: Apache-2.0
"""What ``python -m services.NAME`` does for every service: settings, logging, exit code.

Services take no arguments, but ``--help``, which lists the variables that they read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TypeVar

from services.common.logging import configure_logging
from services.common.processes import PRIVATE_UMASK
from services.common.settings import ServiceSettings
from styleavatar_core.errors import InvalidInputError, StyleAvatarError

SettingsT = TypeVar("SettingsT", bound=ServiceSettings)

# What shells and orchestrators take for "called wrongly": starting again does not help.
UNUSABLE_CODE = 2
# What may be otherwise the next time: Redis is away, a port is taken.
_FAILED_CODE = 1


def run_service(name: str, settings_type: type[SettingsT], run: Callable[[SettingsT], None]) -> int:
    """Runs a service until it is told to end.

    Args:
        name: Stands in the log, and before the sentence when it cannot run.
        settings_type: Reads its settings from the environment.
        run: Serves until a signal.

    Returns:
        The exit code.
    """
    if arguments := sys.argv[1:]:
        return _answer(arguments, settings_type)
    os.umask(PRIVATE_UMASK)
    try:
        settings = settings_type()
        configure_logging(name, settings.log_level, settings.log_format)
        run(settings)
    except StyleAvatarError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return UNUSABLE_CODE if isinstance(error, InvalidInputError) else _FAILED_CODE
    return 0


def _answer(arguments: list[str], settings_type: type[ServiceSettings]) -> int:
    """Says what may be set, or that an argument was not understood; returns the exit code."""
    if arguments not in (["--help"], ["-h"]):
        sys.stderr.write(
            f"{' '.join(arguments)}: a service takes no arguments; it is told by environment "
            "variables, which --help lists\n"
        )
        return UNUSABLE_CODE
    sys.stdout.write("Serves until SIGTERM or Ctrl-C. Reads these environment variables:\n")
    for variable, (default, meaning) in settings_type.explain().items():
        sys.stdout.write(f"\n{variable}{f' (default {default})' if default else ''}\n  {meaning}\n")
    return 0
