# SPDX-License-Identifier: Apache-2.0
"""The error stream of native code, which Python's own redirection does not reach."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import IO

_STDERR = 2


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
