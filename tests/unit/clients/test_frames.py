# SPDX-License-Identifier: Apache-2.0
"""Frames that are paced come as a camera gives them."""

from __future__ import annotations

import time

import numpy as np
import pytest
from styleavatar.v1 import image_pb2, rendering_service_pb2
from styleavatar_client.frames import DriverFrame, PictureOptions, StoredFrame, paced
from styleavatar_client.rpcs import REENACT


def test_frames_go_at_their_capture_times_and_the_first_at_once() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    frames = [DriverFrame(index, 1e6 + 0.02 * index, image) for index in range(4)]
    begun_s = time.perf_counter()
    gone = [(frame, time.perf_counter()) for frame in paced(frames)]
    assert [frame for frame, _ in gone] == frames
    for frame, gone_s in gone:  # none comes early; from so late a clock none would ever come
        assert gone_s - begun_s >= frame.capture_time_s - 1e6


@pytest.mark.parametrize("name", ["jpeg", "png", "h264"])
def test_a_stored_frame_is_sent_as_it_is(name: str) -> None:
    sent = REENACT.frame(StoredFrame(3, 0.5, b"bytes", name)).frame
    stored_as = image_pb2.ImageFormat.Value(f"IMAGE_FORMAT_{name.upper()}")
    assert sent.image == image_pb2.Image(format=stored_as, data=b"bytes")
    assert (sent.frame_index, sent.capture_offset.ToMilliseconds()) == (3, 500)


def test_a_stream_asks_for_its_rate_and_the_quality_of_its_pictures() -> None:
    options = {
        **{"jpeg_quality": 70, "bits_per_second": 900_000, "frames_per_second": 25},
        **{"visible_label": True, "live": True},
    }
    config = rendering_service_pb2.RenderConfig()
    PictureOptions(**options).apply_to(config)
    assert {name: getattr(config, name) for name in options} == options
