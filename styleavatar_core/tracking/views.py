# SPDX-License-Identifier: Apache-2.0
"""A few frames of a stream of any length, spread evenly over what has come so far."""

from __future__ import annotations

from typing import Generic, TypeVar

import cv2
import numpy as np

from styleavatar_core.types import ByteArray

VIEW_COUNT = 8  # at least half as many are kept once as many have come
_SIDE_PX = 512  # enough for the colours of vertices

Key = TypeVar("Key")


class ViewSampler(Generic[Key]):
    """Keeps frames, made small: at most ``VIEW_COUNT``, in constant memory.

    Attributes:
        views: What is kept: the caller's key and (H, W, 3) uint8 RGB each, oldest first.
    """

    def __init__(self) -> None:
        self.views: list[tuple[Key, ByteArray]] = []
        self._stride = 1
        self._seen_count = 0

    def offer(self, key: Key, frame: ByteArray) -> None:
        """Takes the next frame, (H, W, 3) uint8 RGB, or leaves it."""
        if self._seen_count % self._stride == 0:
            if len(self.views) == VIEW_COUNT:
                del self.views[1::2]
                self._stride *= 2
            if self._seen_count % self._stride == 0:
                self.views.append((key, _small(frame)))
        self._seen_count += 1


def _small(frame: ByteArray) -> ByteArray:
    height, width = frame.shape[:2]
    share = _SIDE_PX / max(height, width)
    if share >= 1:
        return frame.copy()
    size = max(1, round(width * share)), max(1, round(height * share))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
