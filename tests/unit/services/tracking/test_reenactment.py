# SPDX-License-Identifier: Apache-2.0
"""Answers of Reenact: what tracking dropped is told, and rendering that does not answer."""

from __future__ import annotations

import asyncio
import socket

import grpc
import pytest
from styleavatar.v1 import image_pb2, rendering_service_pb2

from services.tracking import reenactment
from services.tracking.reenactment import RenderingClient, SentFrame, _answer
from styleavatar_core.errors import EngineUnavailableError


@pytest.mark.parametrize("kind", ["frame", "failure"])
def test_dropped_frames_are_told_with_pictures_and_failures(kind: str) -> None:
    response = rendering_service_pb2.StreamFramesResponse()
    getattr(response, kind).dropped.superseded_count = 1
    tracked = type("Tracked", (), {"timings_s": {}})()
    sent = SentFrame(tracked, image_pb2.DroppedFrames(superseded_count=2, worker_lost_count=3), 0.0)
    dropped = getattr(_answer(response, sent), kind).dropped
    assert (dropped.superseded_count, dropped.worker_lost_count) == (3, 3)


def test_a_rendering_node_that_is_frozen_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reenactment, "CALL_TIMEOUT_S", 0.3)

    async def ask(address: str) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            await RenderingClient(channel).face_identity("anna")

    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(EngineUnavailableError) as caught,
    ):
        asyncio.run(ask(f"127.0.0.1:{silent.getsockname()[1]}"))
    assert caught.value.reason == "STREAM_ENDED"
