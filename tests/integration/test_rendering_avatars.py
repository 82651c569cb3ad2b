# SPDX-License-Identifier: Apache-2.0
"""Avatars come and go under a running rendering service, and so do the workers that hold them."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from styleavatar.v1 import rendering_service_pb2, rendering_service_pb2_grpc

from tests.fakes.bundle import write_fake_bundle
from tests.fakes.renderer import GATE_NAME
from tests.integration.live_stream import Driven, drive
from tests.integration.service_process import ServiceProcess

STATES = health_pb2.HealthCheckResponse
ANNA = 10


@pytest.fixture(scope="module")
def avatars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "avatars"
    write_fake_bundle(folder / "anna", ANNA)
    write_fake_bundle(folder / "slow", 20, {"load_gate": True})
    os.utime(folder / "slow" / "avatar.json", (0, 0))  # the newest is loaded at the start
    return folder


@pytest.fixture(scope="module")
def service(avatars: Path) -> Iterator[ServiceProcess]:
    renderer = "tests.fakes.renderer:FakeRenderer"
    with ServiceProcess("rendering", avatars.parent, renderer=renderer) as process:
        yield process.wait_until_serving()
        assert process.stop() == 0
        assert "Traceback" not in process.log


def load(service: ServiceProcess, avatar_id: str) -> grpc.Future:
    stub = rendering_service_pb2_grpc.RenderingServiceStub(service.channel)
    request = rendering_service_pb2.LoadAvatarRequest(avatar_id=avatar_id)
    return stub.LoadAvatar.future(request, timeout=60)


def health(service: ServiceProcess, name: str) -> int:
    stub = health_pb2_grpc.HealthStub(service.channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status


def watch(service: ServiceProcess, name: str) -> Iterator[int]:
    stub = health_pb2_grpc.HealthStub(service.channel)
    answers = stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=60)
    return (answer.status for answer in answers)


async def thirty(service: ServiceProcess) -> Driven:
    return await drive(service.address, "anna", lambda driven: driven.sent == 30)


def metric(service: ServiceProcess, name: str) -> float:
    text = httpx.get(f"http://127.0.0.1:{service.metrics_port}/metrics").text
    name = f"styleavatar_rendering_{name}"
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(name)))


def loads(service: ServiceProcess) -> float:
    return metric(service, "avatar_load_duration_seconds_count")


def test_an_avatar_that_loads_keeps_nobody_waiting(service: ServiceProcess, avatars: Path) -> None:
    states = watch(service, "avatar/slow")
    assert next(states) == STATES.NOT_SERVING
    assert health(service, "avatar/anna") == STATES.SERVING
    before = loads(service)
    loading = load(service, "slow")
    asked_again = load(service, "slow")
    driven = asyncio.run(thirty(service))
    assert driven.indices == list(range(30))
    driven.assert_own(ANNA)
    assert not loading.done()
    (avatars / "slow" / GATE_NAME).touch()
    assert loading.result().avatar.loaded
    assert asked_again.result().avatar.loaded
    assert loads(service) == before + 1
    assert next(states) == STATES.SERVING


def test_a_watcher_that_leaves_takes_no_other_with_it(
    service: ServiceProcess, avatars: Path
) -> None:
    staying = watch(service, "avatar/eve")
    assert next(staying) == STATES.SERVICE_UNKNOWN
    with grpc.insecure_channel(service.address) as channel:
        request = health_pb2.HealthCheckRequest(service="avatar/eve")
        leaving = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=60)
        assert next(leaving).status == STATES.SERVICE_UNKNOWN
        leaving.cancel()
    health(service, "")  # by now the service has seen it go
    write_fake_bundle(avatars / "eve", 50)
    assert load(service, "eve").result().avatar.loaded
    assert next(state for state in staying if state == STATES.SERVING)


def test_avatars_that_wait_for_their_turn_to_load_harm_nobody(tmp_path: Path) -> None:
    names = ("ben", "carla", "dora")
    write_fake_bundle(tmp_path / "avatars" / "anna", ANNA)
    for name in names:  # together longer than one may take
        write_fake_bundle(tmp_path / "avatars" / name, 20, {"load_s": 1.2})
        os.utime(tmp_path / "avatars" / name / "avatar.json", (0, 0))
    options = {"renderer": "tests.fakes.renderer:FakeRenderer", "stand_by": False}
    with ServiceProcess("rendering", tmp_path, load_timeout_s=2, **options) as busy:
        busy.wait_until_serving()
        loading = [load(busy, name) for name in names]
        driven = asyncio.run(
            drive(busy.address, "anna", lambda driven: all(one.done() for one in loading))
        )
        assert [one.result().avatar.loaded for one in loading] == [True] * 3
        assert driven.code is grpc.StatusCode.OK
        assert driven.indices == list(range(driven.sent))
        driven.assert_own(ANNA)
        assert metric(busy, "worker_restarts_total") == 0
        assert busy.stop() == 0


def test_nobody_is_sent_to_a_service_that_is_not_warm(tmp_path: Path) -> None:
    write_fake_bundle(tmp_path / "avatars" / "slow", 20, {"load_gate": True})
    renderer = "tests.fakes.renderer:FakeRenderer"
    with ServiceProcess("rendering", tmp_path, renderer=renderer, stand_by=False) as starting:
        states = watch(starting, "styleavatar.v1.RenderingService")
        assert next(states) == STATES.NOT_SERVING
        (tmp_path / "avatars" / "slow" / GATE_NAME).touch()
        assert next(states) == STATES.SERVING
        assert loads(starting) == 1
        assert starting.stop() == 0


def test_a_new_bundle_is_taken_when_asked_and_a_deleted_one_is_unknown(
    service: ServiceProcess, avatars: Path
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        load(service, "carla").result()
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    states = watch(service, "avatar/carla")
    assert next(states) == STATES.SERVICE_UNKNOWN
    write_fake_bundle(avatars / "carla", 30)
    assert load(service, "carla").result().avatar.loaded
    assert next(state for state in states if state == STATES.SERVING)
    shutil.rmtree(avatars / "carla")  # noticed by the next sweep, unasked
    assert next(state for state in states if state == STATES.SERVICE_UNKNOWN)
    with pytest.raises(grpc.RpcError) as caught:
        health(service, "avatar/carla")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def standing_by(service: ServiceProcess) -> bool:
    return metric(service, "standby_workers") == 1


def test_the_worker_that_stands_by_takes_over_in_mid_stream(service: ServiceProcess) -> None:
    deadline = time.monotonic() + 60
    while not standing_by(service) and time.monotonic() < deadline:
        time.sleep(0.05)
    serving, spare = sorted(service.workers(), key=lambda worker: worker.create_time())
    struck: list[int] = []

    def until(driven: Driven) -> bool:
        if driven.sent == 15:
            struck.append(driven.sent)
            serving.send_signal(signal.SIGKILL)
        return driven.sent == 30

    driven = asyncio.run(drive(service.address, "anna", until))
    assert struck
    assert driven.code is grpc.StatusCode.OK
    assert driven.indices == list(range(30))
    driven.assert_own(ANNA)
    assert spare.is_running()
    assert serving.pid not in {worker.pid for worker in service.workers()}
