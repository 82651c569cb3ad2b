# SPDX-License-Identifier: Apache-2.0
"""A server listens where it is told, or says what is wrong with that."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from styleavatar.v1 import rendering_service_pb2, rendering_service_pb2_grpc

from services.common.grpc_server import GrpcServer
from services.common.security import ServerSecurity
from styleavatar_core.errors import (
    ConflictError,
    InvalidInputError,
    OverloadedError,
    StyleAvatarError,
)

TLS = Path(__file__).resolve().parents[3] / "fakes" / "tls"
OPEN = ServerSecurity(None, None)
# What begins a connection of HTTP/2: the preface, and settings of which none is said.
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


def server(
    host: str, port: int = 0, security: ServerSecurity = OPEN, keepalive_s: float = 30.0
) -> GrpcServer:
    return GrpcServer(host, port, (), security, keepalive_s=keepalive_s, idle_timeout_s=30.0)


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["::1", "[::1]", "127.0.0.1", "localhost"])
def test_hosts_are_names_and_addresses_of_both_kinds(host: str) -> None:
    async def scenario() -> int:
        listening = server(host)
        await listening.start()
        listening.set_serving(True)
        where = f"[::1]:{listening.port}" if ":" in host else f"{host}:{listening.port}"
        async with grpc.aio.insecure_channel(where) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=30)
        await listening.stop(0)
        return answer.status

    assert asyncio.run(scenario()) == health_pb2.HealthCheckResponse.SERVING


def test_a_port_that_is_taken_is_told_from_a_host_that_is_none() -> None:
    async def scenario(host: str, port: int) -> None:
        await server(host, port).start()

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConflictError, match="in use") as caught:
            asyncio.run(scenario("127.0.0.1", port))
    assert caught.value.reason == "PORT_TAKEN"
    for host in ("no-such-host.invalid", "192.0.2.1"):  # the latter is nobody's
        with pytest.raises(InvalidInputError, match="an address of this machine") as refused:
            asyncio.run(scenario(host, 0))
        assert refused.value.reason == "BAD_SETTING"


def test_a_port_that_needs_rights_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:  # as to whoever is not root
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    async def scenario() -> StyleAvatarError:
        listening = server("127.0.0.1", 80)
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "bind", refuse)
            return listening._why_not()

    told = asyncio.run(scenario())
    assert "Ports below 1024 need rights" in str(told)
    assert "address of this machine" not in str(told)


class FullServicer(rendering_service_pb2_grpc.RenderingServiceServicer):
    """Refuses every stream before it has read anything."""

    def __init__(self) -> None:
        self.refused = asyncio.Event()

    async def StreamFrames(self, request_iterator: object, context: object) -> AsyncIterator[None]:
        self.refused.set()
        raise OverloadedError("full", reason="NO_CAPACITY")
        yield


def test_a_caller_who_is_slow_to_send_hears_all_the_same_why_the_stream_is_refused() -> None:
    async def scenario() -> grpc.StatusCode:
        listening, servicer = server("127.0.0.1"), FullServicer()
        rendering_service_pb2_grpc.add_RenderingServiceServicer_to_server(
            servicer, listening.server
        )
        await listening.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{listening.port}") as channel:
            call = rendering_service_pb2_grpc.RenderingServiceStub(channel).StreamFrames(timeout=30)
            await servicer.refused.wait()
            await asyncio.sleep(0.2)
            await call.write(rendering_service_pb2.StreamFramesRequest())
            with pytest.raises(grpc.aio.AioRpcError):
                await call.read()
            code = await call.code()
        await listening.stop(0)
        return code

    assert asyncio.run(scenario()) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_connection_without_calls_whose_other_end_is_gone_is_closed() -> None:
    async def scenario() -> None:
        listening = server("127.0.0.1", keepalive_s=0.5)
        await listening.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.port)
        writer.write(GREETING)
        async with asyncio.timeout(30):
            assert await reader.read()  # to its end; no ping in it is ever answered
        writer.close()
        await listening.stop(0)

    asyncio.run(scenario())


def test_a_key_of_another_certificate_is_told() -> None:
    pair = (TLS / "client.key").read_bytes(), (TLS / "server.pem").read_bytes()

    async def scenario() -> None:
        credentials = grpc.ssl_server_credentials([pair])
        await server("127.0.0.1", security=ServerSecurity(credentials, None)).start()

    with pytest.raises(InvalidInputError, match="do not fit together"):
        asyncio.run(scenario())
