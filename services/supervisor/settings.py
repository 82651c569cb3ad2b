# SPDX-License-Identifier: Apache-2.0
"""Settings of ``styleavatar serve``: ports, and what is passed on to the services."""

from __future__ import annotations

import contextlib
import errno
import secrets
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.common.settings import REDIS_VARIABLE, ServiceSettings
from styleavatar_core.errors import ConflictError, InvalidInputError

# Below the ports that a system gives to connections: one of those could take a port of them between
# its choice and the service's start, and keep the service from starting for as long as it lasts.
_CHOSEN_PORTS = range(20_000, 32_768)
_TRIES = 100  # of them, others each time: two who choose rarely choose the same


class SupervisorSettings(ServiceSettings):
    """Variables ``STYLEAVATAR_SERVE_*`` and those that all services share.

    The services' own variables (``STYLEAVATAR_RENDERING_WORKER_COUNT`` and so on) reach them as
    they are; ports and addresses are the supervisor's to give.
    """

    model_config = SettingsConfigDict(env_prefix="STYLEAVATAR_SERVE_")

    host: str = Field(default="127.0.0.1", description="Address that all services listen on.")
    gateway_port: int = Field(
        default=8080, ge=0, le=65535, description="HTTP of the gateway; 0: any."
    )
    tracking_port: int = Field(default=50051, ge=0, le=65535, description="gRPC of tracking.")
    rendering_port: int = Field(default=50052, ge=0, le=65535, description="gRPC of rendering.")
    tracking_metrics_port: int = Field(
        default=9101, ge=0, le=65535, description="/metrics of tracking."
    )
    rendering_metrics_port: int = Field(
        default=9102, ge=0, le=65535, description="/metrics of rendering."
    )
    training_metrics_port: int = Field(
        default=9103, ge=0, le=65535, description="/metrics of the trainer."
    )
    redis_url: str | None = Field(
        default=None,
        validation_alias=REDIS_VARIABLE,
        description="Redis to use; an own one is started when unset.",
    )
    log_folder: Path | None = Field(
        default=None, description="Where the services' logs go; the terminal when unset."
    )
    stop_timeout_s: float = Field(
        default=30.0, gt=0, description="How long a service may take to end before it is killed."
    )

    @contextlib.contextmanager
    def holding_ports(self) -> Iterator[SupervisorSettings]:
        """Yields these settings with every port 0 replaced by a free one; holds all for the block.

        Raises:
            ConflictError: A port that was asked for is taken.
            InvalidInputError: Nobody can listen there.
        """
        names = [name for name in type(self).model_fields if name.endswith("_port")]
        with hold_ports(self.host, {name: getattr(self, name) for name in names}) as ports:
            yield self.model_copy(update=ports)


def choose_ports(host: str, wanted: dict[str, int]) -> dict[str, int]:
    """Checks that ports are free, and finds free ones for those given as 0; none is given twice."""
    with hold_ports(host, wanted) as ports:
        return ports


@contextlib.contextmanager
def hold_ports(host: str, wanted: dict[str, int]) -> Iterator[dict[str, int]]:
    """Checks that ports are free, finds free ones for those given as 0, and holds all of them.

    Who looks for a free port is not given a held one. A service that is told to listen on it can,
    as servers share the addresses of sockets that do not listen (SO_REUSEADDR, on Linux).

    Raises:
        ConflictError: A port that was asked for is taken.
        InvalidInputError: Nobody can listen there.
    """
    with contextlib.ExitStack() as held:
        chosen = {}
        for name, port in wanted.items():
            holder = held.enter_context(socket.socket())
            # A port that is asked for may have connections of an earlier service left, that end by
            # themselves; one that is chosen shall be held by nobody else.
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(port != 0))
            try:
                _bind(holder, host, [port] if port else _some_ports())
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise InvalidInputError(
                        f"cannot listen on port {port} of {host}: {error.strerror}; set"
                        " STYLEAVATAR_SERVE_HOST to an IPv4 address of this machine, and choose"
                        " ports above 1023",
                        reason="BAD_SETTING",
                    ) from error
                raise ConflictError(
                    f"port {port} ({name.removesuffix('_port')}) on {host} is taken: stop what uses"
                    f" it, choose another with STYLEAVATAR_SERVE_{name.upper()}, or free ones for"
                    " all with `styleavatar serve --any-ports`",
                    reason="PORT_TAKEN",
                ) from error
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            chosen[name] = holder.getsockname()[1]
        yield chosen


def _some_ports() -> list[int]:
    """Returns ports to choose from."""
    return secrets.SystemRandom().sample(_CHOSEN_PORTS, _TRIES)


def _bind(holder: socket.socket, host: str, ports: Iterable[int]) -> None:
    """Binds a socket to the first port that is free.

    Raises:
        OSError: None is, or none can be bound at this host.
    """
    failure: OSError | None = None
    for port in ports:
        try:
            holder.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            failure = error
        else:
            return
    assert failure is not None
    raise failure
