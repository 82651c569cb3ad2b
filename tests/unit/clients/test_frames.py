# SPDX-License-Identifier: Apache-2.0
"""Frames that are paced come as a camera gives them."""

from __future__ import annotations

import time

import numpy as np
from styleavatar_client.frames import DriverFrame, paced


def test_frames_go_at_their_capture_times_and_the_first_at_once() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    frames = [DriverFrame(index, 1e6 + 0.02 * index, image) for index in range(4)]
    begun_s = time.perf_counter()
    gone = [(frame, time.perf_counter()) for frame in paced(frames)]
    assert [frame for frame, _ in gone] == frames
    for frame, gone_s in gone:  # none comes early; from so late a clock none would ever come
        assert gone_s - begun_s >= frame.capture_time_s - 1e6
