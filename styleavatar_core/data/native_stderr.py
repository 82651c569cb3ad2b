# SPDX-License-Identifier: Apache-2.0
"""The error stream of native code, which Python's own redirection does not reach."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import IO

_STDERR = 2
_ONE_AT_A_TIME = threading.Lock()  # of two that overlap, one would not find it as it was


@contextlib.contextmanager
def native_stderr_to(file: IO[bytes]) -> Iterator[None]:
    """Sends all that this process writes to its error stream to a file.

    Args:
        file: Open for writing, with a descriptor.
    """
    sys.stderr.flush()
    kept = os.dup(_STDERR)
    os.dup2(file.fileno(), _STDERR)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, _STDERR)
        os.close(kept)


@contextlib.contextmanager
def lines_left_out(alarms: Sequence[bytes]) -> Iterator[None]:
    """Keeps lines from this process's error stream; all others come when the block ends.

    Args:
        alarms: A line that holds one of them is left out.
    """
    with _ONE_AT_A_TIME, tempfile.TemporaryFile() as said:
        try:
            with native_stderr_to(said):
                yield
        finally:
            said.seek(0)
            lines = said.read().splitlines(keepends=True)
            kept = [line for line in lines if not any(alarm in line for alarm in alarms)]
            os.write(_STDERR, b"".join(kept))
