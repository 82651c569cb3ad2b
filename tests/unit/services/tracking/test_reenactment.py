# SPDX-License-Identifier: Apache-2.0
"""Answers of Reenact: what tracking dropped is told whatever rendering answers."""

from __future__ import annotations

import pytest
from styleavatar.v1 import image_pb2, rendering_service_pb2

from services.tracking.reenactment import SentFrame, _answer


@pytest.mark.parametrize("kind", ["frame", "failure"])
def test_dropped_frames_are_told_with_pictures_and_failures(kind: str) -> None:
    response = rendering_service_pb2.StreamFramesResponse()
    getattr(response, kind).dropped.superseded_count = 1
    tracked = type("Tracked", (), {"timings_s": {}})()
    sent = SentFrame(tracked, image_pb2.DroppedFrames(superseded_count=2, worker_lost_count=3), 0.0)
    dropped = getattr(_answer(response, sent), kind).dropped
    assert (dropped.superseded_count, dropped.worker_lost_count) == (3, 3)
