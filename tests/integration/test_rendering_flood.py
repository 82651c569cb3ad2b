# SPDX-License-Identifier: Apache-2.0
"""Callers without streams ask for more than there is: streams keep their frames."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import pytest
from styleavatar.v1 import rendering_service_pb2, rendering_service_pb2_grpc

from services.rendering.pool.loads import LOAD_LIMIT
from tests.fakes.bundle import write_fake_bundle
from tests.fakes.renderer import GATE_NAME
from tests.integration.live_stream import Driven, drive
from tests.integration.service_process import ServiceProcess
from tests.integration.stream_helpers import LATEST, face, render_config

HEAVY = 70
NAMES = [f"avatar-{index}" for index in range(LOAD_LIMIT + 2)]
Stub = rendering_service_pb2_grpc.RenderingServiceStub


@pytest.fixture(scope="module")
def avatars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "avatars"
    for name in NAMES:
        write_fake_bundle(folder / name, 20, {"load_gate": True})
    write_fake_bundle(folder / "heavy", HEAVY, {"render_s": 0.02})
    return folder


def start(folder: Path, **changes: object) -> ServiceProcess:
    options = {"renderer": "tests.fakes.renderer:FakeRenderer", "stand_by": False, **changes}
    return ServiceProcess("rendering", folder, warm_avatars=0, **options)


@pytest.fixture(scope="module")
def service(avatars: Path) -> Iterator[ServiceProcess]:
    with start(avatars.parent) as process:
        yield process.wait_until_serving()
        assert process.stop() == 0
        assert "Traceback" not in process.log


def reason(error: grpc.RpcError) -> str:
    metadata = dict(error.trailing_metadata())
    assert float(metadata["styleavatar-retry-delay-s"]) > 0
    return metadata["styleavatar-reason"]


def flood(service: ServiceProcess, enough: threading.Event) -> Counter[str]:
    """Asks for single frames, one after the other, until there were enough."""
    request = rendering_service_pb2.RenderFrameRequest(
        config=render_config("heavy"), parameters=face(1)
    )
    heard: Counter[str] = Counter()
    with grpc.insecure_channel(service.address) as channel:
        while not enough.is_set():
            try:
                Stub(channel).RenderFrame(request, timeout=30)
                heard["picture"] += 1
            except grpc.RpcError as error:
                heard[f"{error.code().name} {reason(error)}"] += 1
                enough.wait(0.01)
    return heard


def test_a_stream_keeps_its_frames_under_a_flood_of_single_ones(service: ServiceProcess) -> None:
    enough = threading.Event()

    def until(driven: Driven) -> bool:
        return driven.sent == 90

    with ThreadPoolExecutor(8) as threads:
        floods = [threads.submit(flood, service, enough) for _ in range(8)]
        try:
            driven = asyncio.run(
                drive(
                    service.address,
                    "heavy",
                    until,
                    interval_s=0.033,
                    window=0,
                    frame_mode=LATEST,
                )
            )
        finally:
            enough.set()
        heard = sum((one.result() for one in floods), Counter())
    assert driven.code is grpc.StatusCode.OK
    driven.assert_own(HEAVY)
    # Each frame takes 20 of 33 ms, and those of eight others would take 160.
    assert len(driven.frames) > 45
    assert heard["picture"] > 0
    assert heard["RESOURCE_EXHAUSTED NO_CAPACITY"] > 0
    assert len(heard) == 2


def test_a_live_stream_keeps_its_frames_beside_streams_of_films(service: ServiceProcess) -> None:
    """Each frame takes 20 ms: films that had all turns they ask for would leave one in seven."""
    films_end = asyncio.Event()

    async def film() -> Driven:
        return await drive(
            service.address, "heavy", lambda driven: films_end.is_set(), frames_per_second=2
        )

    async def scenario() -> tuple[Driven, list[Driven]]:
        films: list[asyncio.Task[Driven]] = []

        def until(driven: Driven) -> bool:
            if driven.frames and not films:
                films.extend(asyncio.create_task(film()) for _ in range(3))
            return driven.sent == 60

        options = {"interval_s": 0.05, "window": 0, "frame_mode": LATEST, "frames_per_second": 20}
        live = await drive(service.address, "heavy", until, **options)
        films_end.set()
        return live, await asyncio.gather(*films)

    live, films = asyncio.run(scenario())
    for driven in (live, *films):
        assert driven.code is grpc.StatusCode.OK
        driven.assert_own(HEAVY)
    for driven in films:
        assert driven.indices == list(range(driven.sent))
    assert len(live.frames) > 40
    assert 0 < sum(len(driven.frames) for driven in films) < 2 * len(live.frames)


def load(service: ServiceProcess, avatar_id: str) -> grpc.Future:
    request = rendering_service_pb2.LoadAvatarRequest(avatar_id=avatar_id)
    return Stub(service.channel).LoadAvatar.future(request, timeout=60)


def test_an_avatar_is_loaded_once_however_many_ask_and_workers_there_are(tmp_path: Path) -> None:
    bundle = write_fake_bundle(tmp_path / "avatars" / "slow", 20, {"load_gate": True})
    with start(tmp_path, worker_count=2) as service:
        service.wait_until_serving()
        asked = [load(service, "slow") for _ in range(4)]
        assert ended(asked, 0) == []
        (bundle / GATE_NAME).touch()
        assert all(one.result().avatar.loaded for one in asked)
        text = httpx.get(f"http://127.0.0.1:{service.metrics_port}/metrics").text
        assert "styleavatar_rendering_avatar_load_duration_seconds_count 1.0" in text
        assert service.stop() == 0


def test_more_loads_than_may_wait_are_refused(service: ServiceProcess, avatars: Path) -> None:
    waiting = [load(service, name) for name in NAMES]
    refused = ended(waiting, len(NAMES) - LOAD_LIMIT)
    assert [reason(one.exception()) for one in refused] == ["LOADS_WAIT"] * len(refused)
    for name in NAMES:
        (avatars / name / GATE_NAME).touch()
    for one in waiting:
        if one not in refused:
            assert one.result().avatar.loaded
    assert all(load(service, name).result().avatar.loaded for name in NAMES)


def ended(calls: list[grpc.Future], count: int) -> list[grpc.Future]:
    """Waits until so many calls have an answer, and returns those."""
    while len(over := [one for one in calls if one.done()]) < count:
        time.sleep(0.02)
    return over
