# SPDX-License-Identifier: Apache-2.0
"""Mutual TLS and API keys, from the client library through tracking to rendering."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from styleavatar.v1 import rendering_service_pb2, tracking_service_pb2
from styleavatar_client.connection import Credentials
from styleavatar_client.errors import ClientError
from styleavatar_client.rest import GatewayClient
from styleavatar_client.streaming import AvatarStreams, DriverFrame

from tests.fakes.bundle import write_fake_bundle
from tests.fakes.renderer import read_mark
from tests.integration.job_system import JobSystem
from tests.integration.service_process import ServiceProcess
from tests.integration.stream_helpers import picture

PEM = Path(__file__).resolve().parents[1] / "fakes" / "tls"
MARK = 90


def make_key(name: str, keys: Path) -> str:
    """Makes a key as the documentation says."""
    made = subprocess.run(
        [sys.executable, "-m", "services.common.security", name],
        capture_output=True,
        text=True,
        check=True,
    )
    keys.write_text((keys.read_text() if keys.exists() else "# callers\n") + made.stdout)
    return made.stderr.strip()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys"


@pytest.fixture(scope="module")
def key(keys: Path) -> str:
    return make_key("tests", keys)


@pytest.fixture(scope="module")
def tracking(
    keys: Path, key: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    data = tmp_path_factory.mktemp("data")
    write_fake_bundle(data / "avatars" / "anna", MARK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STYLEAVATAR_TLS_CERTIFICATE", str(PEM / "server.pem"))
        patch.setenv("STYLEAVATAR_TLS_KEY", str(PEM / "server.key"))
        patch.setenv("STYLEAVATAR_TLS_CLIENT_CA", str(PEM / "ca.pem"))
        patch.setenv("STYLEAVATAR_TLS_CA", str(PEM / "ca.pem"))
        patch.setenv("STYLEAVATAR_API_KEYS_FILE", str(keys))
        patch.setenv("STYLEAVATAR_API_KEY", make_key("tracking", keys))
        rendering = ServiceProcess("rendering", data, renderer="tests.fakes.renderer:FakeRenderer")
        tracking = ServiceProcess(
            "tracking",
            data,
            tracker="tests.fakes.tracker:open_fake_tracker",
            rendering_address=rendering.address,
        )
    for service in (rendering, tracking):
        service.channel.close()
        service.channel = secure_channel(service.address)
        service.wait_until_serving()
    tracking.rendering_address = rendering.address
    yield tracking
    assert [service.stop() for service in (tracking, rendering)] == [0, 0]


def client_credentials() -> grpc.ChannelCredentials:
    parts = [(PEM / name).read_bytes() for name in ("ca.pem", "client.key", "client.pem")]
    return grpc.ssl_channel_credentials(*parts)


def secure_channel(address: str) -> grpc.Channel:
    return grpc.secure_channel(address, client_credentials())


def drive(tracking: ServiceProcess, credentials: Credentials) -> list:
    frames = (DriverFrame(index, 0.04 * index, picture(102)) for index in range(3))
    with AvatarStreams(tracking.address, credentials=credentials) as streams:
        return list(streams.drive("anna", frames, every_frame=True, same_person=True))


def shown(key: str, **changes: Path | None) -> Credentials:
    files = {
        "tls_ca": PEM / "ca.pem",
        "tls_certificate": PEM / "client.pem",
        "tls_key": PEM / "client.key",
    }
    return Credentials(api_key=key, **{**files, **changes})


def test_who_shows_certificate_and_key_is_served(tracking: ServiceProcess, key: str) -> None:
    answers = drive(tracking, shown(key))
    assert [answer.frame_index for answer in answers] == [0, 1, 2]
    assert read_mark(answers[0].image)[0] == MARK


@pytest.mark.parametrize("wrong", ["", "not-a-key"])
def test_a_wrong_key_is_refused_before_a_stream_begins(
    tracking: ServiceProcess, wrong: str
) -> None:
    with pytest.raises(ClientError) as caught:
        drive(tracking, shown(wrong))
    assert (caught.value.code, caught.value.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")


def rpcs() -> list[tuple[str, str]]:
    """Returns service and path of every RPC that the services tell of themselves, but health."""
    files = (rendering_service_pb2, tracking_service_pb2, reflection_pb2)
    return [
        (service.name, f"/{service.full_name}/{method.name}")
        for file in files
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


@pytest.mark.parametrize("wrong", ["", "not-a-key"])
@pytest.mark.parametrize(("service", "path"), rpcs(), ids=[path for _, path in rpcs()])
def test_no_rpc_is_open_to_who_has_no_key(
    tracking: ServiceProcess, service: str, path: str, wrong: str
) -> None:
    is_tracking = service == "TrackingService"
    address = tracking.address if is_tracking else tracking.rendering_address
    with secure_channel(address) as channel:
        # Refused by its name, before anybody looks at what is sent.
        call = channel.stream_stream(path)
        with pytest.raises(grpc.RpcError) as refused:
            list(call(iter([b""]), metadata=[("authorization", f"Bearer {wrong}")], timeout=20))
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_callers_through_asyncio_hear_why_too(tracking: ServiceProcess) -> None:
    async def ask(channel: grpc.aio.Channel) -> grpc.StatusCode:
        call = channel.stream_stream("/styleavatar.v1.TrackingService/Track")(timeout=20)
        with contextlib.suppress(grpc.aio.AioRpcError):
            await call.write(b"")
            await call.read()
        return await call.code()

    async def codes() -> list[grpc.StatusCode]:
        async with grpc.aio.secure_channel(tracking.address, client_credentials()) as channel:
            return await asyncio.gather(*(ask(channel) for _ in range(100)))

    assert set(asyncio.run(codes())) == {grpc.StatusCode.UNAUTHENTICATED}


def test_health_is_open_to_load_balancers(tracking: ServiceProcess) -> None:
    for address in (tracking.address, tracking.rendering_address):
        with secure_channel(address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=20)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("change", [{"tls_ca": None}, {"tls_certificate": None, "tls_key": None}])
def test_without_tls_or_certificate_nobody_gets_in(
    tracking: ServiceProcess, key: str, change: dict[str, None]
) -> None:
    with pytest.raises(ClientError) as caught:
        drive(tracking, shown(key, **change))
    assert caught.value.code == "UNAVAILABLE"


def test_keys_can_be_added_while_the_services_run(tracking: ServiceProcess, keys: Path) -> None:
    added = make_key("late", keys)
    assert len(drive(tracking, shown(added))) == 3


def test_settings_that_cannot_work_are_refused_at_start(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STYLEAVATAR_TLS_CERTIFICATE", str(PEM / "server.pem"))
        service = ServiceProcess("rendering", tmp_path)
        assert service.process.wait(30) == 2
    assert "STYLEAVATAR_TLS_KEY" in Path(service._log_file.name).read_text()


def test_the_gateway_asks_for_the_same_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys"
    key = make_key("tests", keys)
    monkeypatch.setenv("STYLEAVATAR_API_KEYS_FILE", str(keys))
    write_fake_bundle(tmp_path / "data" / "avatars" / "anna", MARK)
    system = JobSystem(tmp_path / "data")
    try:
        system.start_redis()
        system.start_gateway()
        assert system.http.get("/readyz").status_code == 200
        for headers in ({}, {"Authorization": "Bearer nonsense"}):
            for method, path in (
                ("GET", "/v1/avatars"),
                ("DELETE", "/v1/avatars/anna"),
                ("GET", "/v1/avatars/anna/bundle"),
                ("GET", "/v1/training-jobs"),
            ):
                answer = system.http.request(method, path, headers=headers)
                assert (answer.status_code, answer.json()["status"]) == (401, 401)
                assert "API key" in answer.json()["detail"]
        with GatewayClient(str(system.http.base_url), api_key=key) as client:
            assert [avatar["avatar_id"] for avatar in client.list_avatars()] == ["anna"]
    finally:
        system.stop()
