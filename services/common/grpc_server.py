# SPDX-License-Identifier: Apache-2.0
"""A gRPC server as all our services run it: health, reflection, errors, graceful stop."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.common.grpc_errors import ErrorInterceptor
from services.common.health import HealthServicer
from services.common.mailbox import running
from services.common.security import ApiKeyInterceptor, ServerSecurity
from styleavatar_core.errors import ConflictError, InvalidInputError, StyleAvatarError

logger = logging.getLogger(__name__)

# A raw 4K frame is 25 MB.
MESSAGE_BYTES_LIMIT = 32 * 1024 * 1024
# Callers and balancers that ask more often whether this server lives are sent away.
PING_INTERVAL_MIN_MS = 2000
# After this share of the grace period streams end by themselves; the rest is for frames under way.
LAST_CALL_SHARE = 0.5
# How often it is looked whether there is a worker.
LOOK_INTERVAL_S = 0.25


def channel_options(keepalive_s: float) -> tuple[tuple[str, int], ...]:
    """Returns what both ends of a channel agree on: largest messages, and how death is noticed.

    Args:
        keepalive_s: Silence after which the other side is asked; it has a third of it to answer.
    """
    timeout_ms = round(1000 * keepalive_s / 3)
    return (
        ("grpc.max_receive_message_length", MESSAGE_BYTES_LIMIT),
        ("grpc.max_send_message_length", MESSAGE_BYTES_LIMIT),
        ("grpc.keepalive_time_ms", round(1000 * keepalive_s)),
        ("grpc.keepalive_timeout_ms", timeout_ms),
        # Pings that measure the line go out too; while one is unanswered no other is sent.
        ("grpc.http2.ping_timeout_ms", timeout_ms),
    )


def _server_options(keepalive_s: float) -> tuple[tuple[str, int], ...]:
    return (
        *channel_options(keepalive_s),
        # Callers without calls are asked too: else connections of those that are gone would stay.
        ("grpc.keepalive_permit_without_calls", 1),
        (
            "grpc.http2.min_ping_interval_without_data_ms",
            min(PING_INTERVAL_MIN_MS, round(1000 * keepalive_s / 3)),
        ),
        ("grpc.so_reuseport", 0),  # a port in use is an error, not a silent share
    )


class Leaving:
    """When this server stops: streams are told at once, and end before they would be cut off."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self._grace_s = 0.0

    def begin(self, grace_s: float) -> None:
        """Says that the server stops in so many seconds."""
        self._grace_s = grace_s
        self._begun.set()

    def has_begun(self) -> bool:
        """Whether the server is about to stop."""
        return self._begun.is_set()

    async def last_call(self) -> None:
        """Waits until streams should end by themselves."""
        await self._begun.wait()
        await asyncio.sleep(LAST_CALL_SHARE * self._grace_s)


class GrpcServer:
    """A listening server; health says NOT_SERVING until ``set_serving(True)``.

    Attributes:
        port: The port that is really bound.
        leaving: Says when it stops.
    """

    def __init__(
        self,
        host: str,
        port: int,
        service_names: Sequence[str],
        security: ServerSecurity,
        keepalive_s: float,
        idle_timeout_s: float,
    ) -> None:
        """Makes the server without listening.

        Args:
            host: Name or address, IPv6 as it is or in brackets.
            port: 0 takes a free one.
            service_names: Full names of the services, for health and reflection.
            security: Who may call.
            keepalive_s: Silence after which a caller is asked whether he lives, and let go if he
                does not answer.
            idle_timeout_s: A stream whose caller does not take an answer for so long is ended.
        """
        interceptors: list[grpc.aio.ServerInterceptor] = [ErrorInterceptor(idle_timeout_s)]
        if security.api_keys is not None:
            interceptors.append(ApiKeyInterceptor(security.api_keys))
        options = _server_options(keepalive_s)
        self.server = grpc.aio.server(interceptors=interceptors, options=options)
        self._credentials = security.credentials
        self.port = port
        self.leaving = Leaving()
        self._host = host.strip("[]")
        self._address = f"[{self._host}]:{port}" if ":" in self._host else f"{self._host}:{port}"
        self._health = HealthServicer()
        self._service_names = ("", *service_names)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        reflection.enable_server_reflection(
            (*service_names, health.SERVICE_NAME, reflection.SERVICE_NAME), self.server
        )

    async def start(self) -> None:
        """Binds and listens.

        Raises:
            ConflictError: When the port is taken.
            InvalidInputError: When host, certificate or key cannot be used.
        """
        self.set_serving(False)
        try:
            if self._credentials is None:
                self.port = self.server.add_insecure_port(self._address)
            else:
                self.port = self.server.add_secure_port(self._address, self._credentials)
        except RuntimeError as error:
            raise self._why_not() from error
        await self.server.start()
        logger.info("listening", extra={"address": self._address, "port": self.port})

    def _why_not(self) -> StyleAvatarError:
        """Finds out why gRPC could not listen, which it does not say."""
        failed = f"Cannot listen on {self._address}: "
        try:
            found = socket.getaddrinfo(self._host, self.port, type=socket.SOCK_STREAM)
            family, kind, protocol, _, address = found[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                advice = "it is in use. Stop the other process or choose another port."
                return ConflictError(failed + advice, reason="PORT_TAKEN")
            if error.errno == errno.EACCES:
                failed += f"{error.strerror}. Ports below 1024 need rights; choose one above."
                return InvalidInputError(failed, reason="BAD_SETTING")
            failed += f"{error.strerror}. Say an address of this machine."
            return InvalidInputError(failed, reason="BAD_SETTING")
        failed += "its certificate and its key do not fit together."
        return InvalidInputError(failed, reason="BAD_SETTING")

    def set_serving(self, serving: bool) -> None:
        """Changes what health checks hear, for all services."""
        for name in self._service_names:
            self._health.tell(name, serving=serving)

    def tell_health(self, name: str, serving: bool | None) -> None:
        """Changes what health checks hear of one thing.

        Args:
            name: Of what is checked.
            serving: Whether it serves; None when there is no such thing any more.
        """
        self._health.tell(name, serving=serving)

    async def stop(self, grace_s: float) -> None:
        """Refuses new calls, lets running ones end for ``grace_s`` seconds, then cancels them."""
        self._health.stop()
        self.leaving.begin(grace_s)
        await self.server.stop(grace_s)


async def run_until_signal(
    server: GrpcServer,
    prepare: Callable[[], Awaitable[None]],
    is_usable: Callable[[], bool],
    clean_up: Callable[[], Awaitable[None]],
    drain_timeout_s: float,
) -> None:
    """Runs a service: listen, get ready, serve; on SIGTERM or SIGINT drain, clean up, return.

    Args:
        server: With its servicers added.
        prepare: Makes ready what the servicers need.
        is_usable: Whether any worker is there; afterwards health says SERVING while one is.
        clean_up: Frees it.
        drain_timeout_s: How long running calls may go on after the signal.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await server.start()
    stopping = asyncio.create_task(stop.wait())
    preparing = asyncio.ensure_future(prepare())
    try:
        await asyncio.wait({stopping, preparing}, return_when=asyncio.FIRST_COMPLETED)
        if preparing.done():
            preparing.result()
            # What the start left behind stays for good: collecting it again would delay frames.
            gc.collect()
            gc.freeze()
            server.set_serving(True)
            logger.info("ready", extra={"port": server.port})
            async with running(_keep_serving_while(is_usable, server.set_serving)):
                await stopping
        logger.info("stopping", extra={"drain_timeout_s": drain_timeout_s})
    finally:
        stopping.cancel()
        preparing.cancel()
        await asyncio.gather(stopping, preparing, return_exceptions=True)
        await server.stop(drain_timeout_s)
        await clean_up()


async def _keep_serving_while(
    is_usable: Callable[[], bool], set_serving: Callable[[bool], None]
) -> None:
    """Takes the service out of balancers' rotation while no worker is there, until cancelled."""
    is_serving = True
    while True:
        await asyncio.sleep(LOOK_INTERVAL_S)
        if is_usable() != is_serving:
            is_serving = not is_serving
            logger.warning("workers are back" if is_serving else "no worker is left")
            set_serving(is_serving)
