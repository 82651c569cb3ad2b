# SPDX-License-Identifier: Apache-2.0
"""Workers that do not come back: callers are sent away, balancers are told, others are served."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from styleavatar.v1 import rendering_service_pb2, rendering_service_pb2_grpc

from tests.fakes.bundle import write_fake_bundle
from tests.fakes.renderer import BEHAVIOR_NAME
from tests.integration.job_system import wait_for
from tests.integration.live_stream import Driven, drive, drive_to_the_end
from tests.integration.service_process import ServiceProcess
from tests.integration.stream_helpers import LATEST

ANNA = 10
STATES = health_pb2.HealthCheckResponse


@pytest.fixture(scope="module")
def avatars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "avatars"
    write_fake_bundle(folder / "anna", ANNA)
    write_fake_bundle(folder / "broken-device", 20, {"device_fails_at_load": True})
    write_fake_bundle(folder / "slow", 90, {"render_s": 0.25})
    write_fake_bundle(folder / "fatal", 20, {"die_at_load": True})
    write_fake_bundle(folder / "deadly", 30, {"die_from": 5})
    return folder


@pytest.fixture(scope="module")
def started(avatars: Path) -> Iterator[ServiceProcess]:
    options = {"renderer": "tests.fakes.renderer:FakeRenderer", "stand_by": False}
    with ServiceProcess("rendering", avatars.parent, warm_avatars=0, **options) as process:
        yield process.wait_until_serving()
        assert process.stop() == 0
        assert "Traceback" not in process.log


@pytest.fixture
def service(started: ServiceProcess) -> ServiceProcess:
    wait_for(started.workers)  # the test before may have killed it
    return started


def load(service: ServiceProcess, avatar_id: str) -> bool:
    stub = rendering_service_pb2_grpc.RenderingServiceStub(service.channel)
    request = rendering_service_pb2.LoadAvatarRequest(avatar_id=avatar_id)
    return stub.LoadAvatar(request, timeout=60).avatar.loaded


def live(service: ServiceProcess, avatar_id: str, strike_at: int | None = None) -> Driven:
    """Drives a live stream until the service ends it."""

    def strike(driven: Driven) -> None:
        if driven.sent == strike_at:
            service.workers()[0].send_signal(signal.SIGKILL)

    return drive_to_the_end(
        service.address, avatar_id, interval_s=0.02, before_each=strike, frame_mode=LATEST
    )


def health(service: ServiceProcess) -> Iterator[int]:
    request = health_pb2.HealthCheckRequest(service="styleavatar.v1.RenderingService")
    answers = health_pb2_grpc.HealthStub(service.channel).Watch(request, timeout=120)
    return (answer.status for answer in answers)


def test_a_device_that_fails_at_loading_ends_its_worker(service: ServiceProcess) -> None:
    (worker,) = service.workers()
    with pytest.raises(grpc.RpcError) as caught:
        load(service, "broken-device")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert worker.wait(30) is None
    assert load(service, "anna")


def test_a_bundle_that_kills_its_workers_is_refused_and_others_are_served(
    service: ServiceProcess,
) -> None:
    def refusal() -> str:
        with pytest.raises(grpc.RpcError) as caught:
            load(service, "fatal")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        return caught.value.details()

    assert next(said for said in iter(refusal, "") if "times in a row" in said)
    driven = Driven()
    while driven.code is not grpc.StatusCode.OK:  # until there is a worker again
        driven = asyncio.run(drive(service.address, "anna", lambda driven: driven.sent == 5))
    assert driven.indices == list(range(5))


def test_a_live_stream_is_sent_away_when_workers_do_not_come_back(
    service: ServiceProcess, avatars: Path
) -> None:
    states = health(service)
    assert next(state for state in states if state == STATES.SERVING)
    assert load(service, "anna")
    behavior = avatars / "anna" / BEHAVIOR_NAME
    behavior.write_text(json.dumps({"die_at_load": True}))
    driven = live(service, "anna", strike_at=20)
    assert (driven.code, driven.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_WORKER")
    driven.assert_own(ANNA)
    assert next(state for state in states if state == STATES.NOT_SERVING)
    behavior.unlink()
    assert next(state for state in states if state == STATES.SERVING)

    def is_loaded() -> bool:
        try:
            return load(service, "anna")
        except grpc.RpcError:  # of a load that had begun before
            return False

    wait_for(is_loaded)


def test_a_live_stream_whose_every_frame_kills_is_ended(service: ServiceProcess) -> None:
    driven = live(service, "deadly")
    assert (driven.code, driven.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_WORKER")
    assert driven.indices[-1] == 4


def test_a_slow_avatar_is_given_its_time(avatars: Path) -> None:
    # Each frame waits for those of two other streams, longer than a hung worker is given.
    options = {"renderer": "tests.fakes.renderer:FakeRenderer", "stand_by": False}
    options |= {"render_timeout_s": 0.6, "utilization_limit": 5, "warm_avatars": 0}
    with ServiceProcess("rendering", avatars.parent, **options) as service:
        service.wait_until_serving()

        async def scenario() -> list[Driven]:
            until, address = (lambda driven: driven.sent == 4), service.address
            streams = (drive(address, "slow", until, frames_per_second=1) for _ in range(3))
            return await asyncio.gather(*streams)

        for driven in asyncio.run(scenario()):
            assert driven.indices == list(range(4))
            driven.assert_own(90)
        text = httpx.get(f"http://127.0.0.1:{service.metrics_port}/metrics").text
        assert "styleavatar_rendering_worker_restarts_total 0.0" in text
        assert service.stop() == 0
