# SPDX-License-Identifier: Apache-2.0
"""Who gets the room that workers and the service have, and who gives it back."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from styleavatar.v1 import rendering_service_pb2, rendering_service_pb2_grpc

from tests.fakes.bundle import write_fake_bundle
from tests.fakes.renderer import GATE_NAME, MEMORY_BYTES
from tests.integration.live_stream import Driven, drive
from tests.integration.service_process import ServiceProcess

MARKS = {"anna": 10, "ben": 20, "carla": 30, "dora": 40, "eve": 50}
Stub = rendering_service_pb2_grpc.RenderingServiceStub


@pytest.fixture(scope="module")
def avatars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "avatars"
    for name, mark in MARKS.items():
        write_fake_bundle(folder / name, mark)
    write_fake_bundle(folder / "gated", 60, {"load_gate": True})
    write_fake_bundle(folder / "doomed", 70, {"load_s": 2.0})
    return folder


@pytest.fixture(scope="module")
def service(avatars: Path) -> Iterator[ServiceProcess]:
    """Two workers, each with memory for two avatars."""
    options = {"renderer": "tests.fakes.renderer:FakeRenderer", "stand_by": False}
    options |= {"worker_count": 2, "engine_bytes_per_worker": 2 * MEMORY_BYTES, "warm_avatars": 0}
    with ServiceProcess("rendering", avatars.parent, utilization_limit=5, **options) as process:
        yield process.wait_until_serving()
        assert process.stop() == 0
        assert "Traceback" not in process.log


def load(service: ServiceProcess, avatar_id: str) -> grpc.Future:
    request = rendering_service_pb2.LoadAvatarRequest(avatar_id=avatar_id)
    return Stub(service.channel).LoadAvatar.future(request, timeout=60)


def loaded(service: ServiceProcess) -> float:
    text = httpx.get(f"http://127.0.0.1:{service.metrics_port}/metrics").text
    name = "styleavatar_rendering_loaded_avatars"
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(name)))


def test_an_avatar_goes_where_there_is_memory_for_it(service: ServiceProcess) -> None:
    async def scenario() -> list[Driven]:
        enough = asyncio.Event()

        async def stream(name: str, frames_per_second: int, streaming: asyncio.Event) -> Driven:
            def until(driven: Driven) -> bool:
                if driven.frames:
                    streaming.set()
                return enough.is_set()

            return await drive(
                service.address,
                name,
                until,
                interval_s=0.02,
                frames_per_second=frames_per_second,
            )

        held = []
        # Each goes to the less busy worker: Ben to Anna's, Dora as well, who finds it full.
        for name, frames_per_second in (("anna", 1), ("carla", 100), ("ben", 1), ("dora", 1)):
            streaming = asyncio.Event()
            held.append(asyncio.create_task(stream(name, frames_per_second, streaming)))
            waiting = asyncio.create_task(streaming.wait())
            await asyncio.wait({held[-1], waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
        # There is no memory for a fifth at either.
        held.append(asyncio.create_task(stream("eve", 1, asyncio.Event())))
        await asyncio.wait({held[-1]})
        enough.set()
        return await asyncio.gather(*held)

    *held, full = asyncio.run(scenario())
    for driven, name in zip(held, ("anna", "carla", "ben", "dora"), strict=True):
        assert (driven.code, driven.reason) == (grpc.StatusCode.OK, "")
        driven.assert_own(MARKS[name])
    assert (full.code, full.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_MEMORY")


def fill(service: ServiceProcess) -> None:
    """Loads as many avatars as both workers take."""
    for name in ("anna", "ben", "carla", "dora"):
        assert load(service, name).result().avatar.loaded
    assert loaded(service) == 4


def test_who_leaves_for_another_does_so_before_it_is_loaded(
    service: ServiceProcess, avatars: Path
) -> None:
    fill(service)
    waiting = load(service, "gated")
    deadline = time.monotonic() + 30
    while loaded(service) == 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert loaded(service) == 3
    assert not waiting.done()
    (avatars / "gated" / GATE_NAME).touch()
    assert waiting.result().avatar.loaded
    assert loaded(service) == 4


def test_an_avatar_that_is_deleted_while_it_is_loaded_is_not_kept(
    service: ServiceProcess, avatars: Path
) -> None:
    fill(service)
    waiting = load(service, "doomed")
    time.sleep(0.5)
    shutil.rmtree(avatars / "doomed")
    request = rendering_service_pb2.GetAvatarRequest(avatar_id="doomed")
    with pytest.raises(grpc.RpcError) as caught:
        Stub(service.channel).GetAvatar(request, timeout=20)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert waiting.exception().code() is grpc.StatusCode.NOT_FOUND
    assert loaded(service) == 3  # that which left for it is gone


def test_who_says_no_config_is_let_go(service: ServiceProcess) -> None:
    waiting = threading.Event()
    mute = Stub(service.channel).StreamFrames(iter(lambda: waiting.wait(60), True), timeout=60)
    with pytest.raises(grpc.RpcError) as caught:
        next(mute)
    waiting.set()
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "config" in caught.value.details()
