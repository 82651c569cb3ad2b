# SPDX-License-Identifier: Apache-2.0
"""A live stream while its worker loads avatars that it has never seen: how long does it wait?"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

import grpc
import numpy as np
from styleavatar.v1 import rendering_service_pb2, rendering_service_pb2_grpc

from benchmarks.streaming_parts.callers import LiveResult, live_stream, own_connection
from benchmarks.streaming_parts.service import RunningService
from tests.fakes.nano_bundle import write_nano_bundle

PRESET = "nano"  # what holds its rate on a small CPU, so that a wait is the load's
NEW_COUNT = 3


def write_new_avatars(avatars: Path) -> list[str]:
    """Writes avatars that no engine was ever built for; returns their ids."""
    names = [f"new-{index}" for index in range(NEW_COUNT)]
    for name in names:
        write_nano_bundle(avatars / name, seed=secrets.randbits(32), preset=PRESET)
    return names


def measure_loading(
    service: RunningService,
    avatar_id: str,
    new_ids: Sequence[str],
    seconds: float,
    frames_per_second: int,
) -> dict[str, float]:
    """Streams alone, then while avatars are loaded one after the other.

    Args:
        service: With one worker, which has not loaded them.
        avatar_id: Of the stream.
        new_ids: Avatars that are loaded.
        seconds: Of each.
        frames_per_second: What the stream sends.

    Returns:
        Gaps between pictures in both, and what a load took.

    Raises:
        RuntimeError: The stream's worker is not the one that loads them.
    """
    require_own_loads(service, new_ids)
    loads_s: list[float] = []

    async def load() -> None:
        async with grpc.aio.insecure_channel(service.address) as channel:
            stub = rendering_service_pb2_grpc.RenderingServiceStub(channel)
            for new_id in new_ids:
                begun_s = time.perf_counter()
                request = rendering_service_pb2.LoadAvatarRequest(avatar_id=new_id)
                await stub.LoadAvatar(request)
                loads_s.append(time.perf_counter() - begun_s)

    async def stream() -> LiveResult:
        async with own_connection(service.address) as channel:
            return await live_stream(channel, avatar_id, seconds, frames_per_second)

    async def both() -> LiveResult:
        result, _ = await asyncio.gather(stream(), load())
        return result

    figures: dict[str, float] = {}
    for name, run in (("alone", stream), ("beside", both)):
        steps_ms = asyncio.run(run()).intervals_ms()
        figures[f"loading.interframe_{name}_ms_p99"] = float(np.percentile(steps_ms, 99))
        figures[f"loading.interframe_{name}_ms_max"] = max(steps_ms)
    return {**figures, "loading.load_s_max": max(loads_s)}


def require_own_loads(service: RunningService, new_ids: Sequence[str]) -> None:
    """Raises unless a stream's worker will have to load these avatars itself."""
    if service.worker_count != 1:
        raise RuntimeError(
            f"loads are measured with one worker, not {service.worker_count}: another loads them"
        )
    stub = rendering_service_pb2_grpc.RenderingServiceStub(service.channel)
    answer = stub.ListAvatars(rendering_service_pb2.ListAvatarsRequest())
    loaded = {avatar.avatar_id for avatar in answer.avatars if avatar.loaded} & set(new_ids)
    if loaded:
        raise RuntimeError(f"loaded before they were asked for: {', '.join(sorted(loaded))}")
