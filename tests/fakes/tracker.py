# SPDX-License-Identifier: Apache-2.0
"""A tracker that reads the face off the color of a picture: no landmarks, no models."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from styleavatar_core.types import ByteArray, FaceIdentity, FaceParameters


class FakeTracker:
    """The mean red of a frame, over 255, is the first expression coefficient; black is no face."""

    def track(
        self, frame_rgb: ByteArray, capture_time_s: float = 0.0, frame_index: int = 0
    ) -> FaceParameters | None:
        red = float(frame_rgb[..., 0].mean()) / 255.0
        if red < 0.02:
            return None
        expression = np.zeros(52, np.float32)
        expression[0] = red
        return FaceParameters(
            model_id="builtin-3",
            rotation=np.array([1, 0, 0, 0], np.float32),
            translation=np.zeros(3, np.float32),
            scale=0.5,
            expression=expression,
            eye_rotation=np.zeros((2, 2), np.float32),
            capture_time_s=capture_time_s,
            frame_index=frame_index,
        )

    def close(self) -> None:
        pass


def open_fake_tracker(model_id: str, identity: FaceIdentity | None, filtered: bool) -> FakeTracker:
    return FakeTracker()


class NotingTracker(FakeTracker):
    """Leaves a file where it was told to when it is closed."""

    def __init__(self, closed: Path) -> None:
        self._closed = closed

    def close(self) -> None:
        self._closed.touch()


def open_noting_tracker(
    model_id: str, identity: FaceIdentity | None, filtered: bool
) -> FakeTracker:
    """Takes the model's id for a folder: says ``opening`` there and waits for ``go``."""
    if not model_id:
        return FakeTracker()
    folder = Path(model_id)
    (folder / "opening").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    return NotingTracker(folder / "closed")
