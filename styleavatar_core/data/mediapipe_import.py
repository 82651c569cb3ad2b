# SPDX-License-Identifier: Apache-2.0
"""MediaPipe, imported without a false alarm.

Native code in MediaPipe 0.10.21 asks protobuf 6 for a method that it no longer has, does without
it, and prints the ``AttributeError`` all the same: people take it for the reason of whatever
happens next.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from typing import Any

from styleavatar_core.data.native_stderr import native_stderr_to

_FALSE_ALARM = b"'MessageFactory' object has no attribute 'GetPrototype'"


def import_mediapipe() -> Any:
    """Imports MediaPipe; whatever else is said meanwhile is passed on to the error stream."""
    with tempfile.TemporaryFile() as said:
        try:
            with native_stderr_to(said):
                return importlib.import_module("mediapipe")
        finally:
            said.seek(0)
            lines = said.read().splitlines(keepends=True)
            os.write(2, b"".join(line for line in lines if _FALSE_ALARM not in line))
