# SPDX-License-Identifier: Apache-2.0
"""Files that a training goes on without where they cannot be written, as on a full disk."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)


class SideFiles:
    """Lets files fail to be written, and says so once for each until it can be written again."""

    def __init__(self) -> None:
        self._unwritten: set[str] = set()  # names of those that could not be written last time

    @contextmanager
    def going_on_without(self, name: str) -> Iterator[None]:
        """Lets the block fail to write the file of a name."""
        try:
            yield
        except OSError as error:
            if name not in self._unwritten:
                logger.warning(
                    "the training goes on without a file that cannot be written",
                    extra={"file": name, "error": str(error)},
                )
            self._unwritten.add(name)
        else:
            self._unwritten.discard(name)


def append_whole(path: Path, data: bytes) -> None:
    """Appends to a file, all or nothing: half a record would spoil the next.

    Raises:
        OSError: It cannot be written, and is as it was.
    """
    length = path.stat().st_size if path.exists() else 0
    try:
        with path.open("ab") as file:
            file.write(data)
    except OSError:
        if path.exists():
            os.truncate(path, length)
        raise
