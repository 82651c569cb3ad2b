# SPDX-License-Identifier: Apache-2.0
"""MediaPipe without its false alarms, which people take for the reason of whatever happens next.

Native code in MediaPipe 0.10.21 asks protobuf 6 for a method that it no longer has, does without
it, and prints the ``AttributeError`` all the same. At its first picture each solution warns of what
is so by its own design. No setting of its log keeps these lines back.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from styleavatar_core.data.native_stderr import lines_left_out

_AT_IMPORT = (b"'MessageFactory' object has no attribute 'GetPrototype'",)
_AT_START = (
    b"Created TensorFlow Lite XNNPACK delegate",
    b"All log messages before absl::InitializeLog()",
    b"inference_feedback_manager.cc",
    b"landmark_projection_calculator.cc",
)
_NOBODY = np.zeros((64, 64, 3), np.uint8)


def import_mediapipe() -> Any:
    """Imports MediaPipe; whatever else is said meanwhile is passed on to the error stream."""
    with lines_left_out(_AT_IMPORT):
        return importlib.import_module("mediapipe")


class QuietSolution:
    """One of MediaPipe's solutions, without the lines that it writes when it starts.

    Args:
        open_solution: Makes it.
    """

    def __init__(self, open_solution: Callable[[], Any]) -> None:
        with lines_left_out(_AT_START):
            self._solution = open_solution()
            self._solution.process(_NOBODY)  # threads open the models: waits for what they write
        self._has_started = False

    def process(self, frame: Any) -> Any:
        """Returns what the solution finds in (H, W, 3) uint8 RGB."""
        if self._has_started:
            return self._solution.process(frame)
        with lines_left_out(_AT_START):  # now of what is done with a face
            found = self._solution.process(frame)
        self._has_started = True
        return found

    def close(self) -> None:
        """Frees the models."""
        self._solution.close()
