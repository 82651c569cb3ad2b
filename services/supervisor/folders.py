# SPDX-License-Identifier: Apache-2.0
"""The folders of a system that runs on one machine: made, and kept from others."""

from __future__ import annotations

import fcntl
import logging
from pathlib import Path
from typing import IO

from styleavatar_core.errors import ConflictError

logger = logging.getLogger(__name__)


def make_folder(folder: Path) -> None:
    """Makes a folder that is its owner's alone, unless it is there.

    Raises:
        ConflictError: It cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConflictError(
            f"the folder {folder} cannot be made: {error.strerror}; choose one that can with --data"
            " or --log-folder"
        ) from error


def lock_redis_folder(data_folder: Path) -> IO[str]:
    """Takes the embedded Redis's folder for this process until the returned file is closed.

    Two Redis servers would both load its append-only file, and the second one's writes be lost.

    Raises:
        ConflictError: Another process has it.
    """
    folder = data_folder / "redis"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / "lock"
    path.touch(mode=0o600)
    lock = path.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system frees it however we end
    except BlockingIOError as error:
        lock.close()
        raise ConflictError(
            f"the data folder {data_folder} is in use by another `styleavatar serve` or demo: stop"
            " that one, or choose another folder"
        ) from error
    except OSError as error:  # a file system without locks keeps nobody out
        logger.warning("the data folder cannot be locked", extra={"reason": str(error)})
    return lock
