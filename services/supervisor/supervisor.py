# SPDX-License-Identifier: Apache-2.0
"""Runs all processes of the system on one machine and keeps them running.

Example::

    with Supervisor(SupervisorSettings(gateway_port=0, ...)) as supervisor:
        supervisor.wait_ready(60)
        supervisor.endpoints.gateway_url
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from services.supervisor.child import Child, ChildSpec
from services.supervisor.folders import lock_redis_folder, make_folder
from services.supervisor.settings import SupervisorSettings
from services.supervisor.specs import (
    address_to_reach,
    redis_answers,
    redis_spec,
    redis_url,
    service_specs,
)
from styleavatar_core.errors import ConflictError, EngineUnavailableError

logger = logging.getLogger(__name__)

_LOOK_INTERVAL_S = 0.2
_REDIS_START_LIMIT_S = 20.0
_TLS_VARIABLE = "STYLEAVATAR_TLS_CERTIFICATE"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the running system is reached.

    Attributes:
        gateway_url: REST, events and the page, ``http://host:port``.
        tracking_address: gRPC, ``host:port``.
        rendering_address: gRPC, ``host:port``.
    """

    gateway_url: str
    tracking_address: str
    rendering_address: str


class Supervisor:
    """All processes of the system, from ``start`` to ``stop``.

    One thread starts the children and looks after them, and it lives as long as they do: when
    this process ends in whatever way, so do they.

    Attributes:
        settings: Once it is started, with the ports that are used.
    """

    def __init__(self, settings: SupervisorSettings) -> None:
        self.settings = settings
        self._children: list[Child] = []
        self._failure: BaseException | None = None
        self._stop_requested = threading.Event()
        self._thread: threading.Thread | None = None
        self._socket_folder: Path | None = None
        self._held = contextlib.ExitStack()

    @property
    def endpoints(self) -> Endpoints:
        """Where the system is reached."""
        address = {spec.name: spec.address for spec in service_specs(self.settings, "")}
        return Endpoints(address["gateway"], address["tracking"], address["rendering"])

    @property
    def children(self) -> list[Child]:
        """The processes, in the order in which they were started."""
        return list(self._children)

    def start(self) -> None:
        """Starts everything; returns before it is ready.

        Raises:
            ConflictError: It runs already, another one uses the same data folder, a folder cannot
                be made, a port is taken, or its services are to encrypt what they tell each other.
            InvalidInputError: Nobody can listen at its host.
        """
        if self._thread is not None:
            raise ConflictError("the supervisor is already running")
        if os.environ.get(_TLS_VARIABLE):
            raise ConflictError(
                f"{_TLS_VARIABLE} is set, and the services of one machine are asked in the clear"
                " whether they live: unset it here, and put a proxy with TLS before them"
            )
        for folder in (self.settings.data_folder, self.settings.log_folder):
            if folder is not None:
                make_folder(folder)
        with contextlib.ExitStack() as held:
            if not self.settings.redis_url:
                held.enter_context(lock_redis_folder(self.settings.data_folder))
            self.settings = held.enter_context(self.settings.holding_ports())
            self._held = held.pop_all()
        _reach_directly(address_to_reach(self.settings.host))
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._thread.start()

    def wait_ready(self, timeout_s: float = 120.0) -> None:
        """Waits until every process does its work.

        Raises:
            EngineUnavailableError: One of them does not, in this time, or cannot with its settings.
        """
        deadline = time.monotonic() + timeout_s
        waiting: list[ChildSpec] | None = None
        while waiting is None or waiting:
            self.require_running()
            if self._stop_requested.is_set():
                raise EngineUnavailableError("told to stop before all was ready")
            expected = len(service_specs(self.settings, "")) + int(not self.settings.redis_url)
            children = self.children
            self._refuse_unusable(children)
            if len(children) == expected:
                pending = [child.spec for child in children] if waiting is None else waiting
                waiting = [spec for spec in pending if not spec.is_ready()]
            if waiting == []:
                return
            if time.monotonic() > deadline:
                names = ", ".join(spec.name for spec in waiting or []) or "redis"
                raise EngineUnavailableError(
                    f"not ready after {timeout_s:g} s: {names}; {self._where_logs_are()}"
                )
            time.sleep(_LOOK_INTERVAL_S)

    def _refuse_unusable(self, children: list[Child]) -> None:
        """Makes sure that no child has said that it cannot run with its settings."""
        names = ", ".join(child.spec.name for child in children if child.is_unusable)
        if names:
            raise EngineUnavailableError(
                f"{names} cannot run with these settings; {self._where_logs_are()}"
            )

    def require_running(self) -> None:
        """Makes sure that it has not given up.

        Raises:
            EngineUnavailableError: It has, and every process has ended.
        """
        if self._failure is not None:
            raise EngineUnavailableError(f"the services cannot run: {self._failure}")

    def stop(self) -> None:
        """Ends everything in order: who takes work first, Redis last. Safe to call twice."""
        self._stop_requested.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def __enter__(self) -> Self:
        """Starts everything."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends everything."""
        self.stop()

    def _run(self) -> None:
        try:
            redis = self.settings.redis_url or self._start_redis()
            for spec in service_specs(self.settings, redis):
                self._start(spec)
            while not self._stop_requested.wait(_LOOK_INTERVAL_S):
                for child in self._children:
                    child.look_after()
        except Exception as error:
            self._failure = error
            logger.exception("the supervisor cannot go on")
        finally:
            self._end_all()

    def _start(self, spec: ChildSpec) -> None:
        child = Child(spec, self.settings.log_folder)
        child.start()
        self._children.append(child)

    def _start_redis(self) -> str:
        """Starts the embedded Redis and waits until it answers; returns its URL."""
        # Redis changes into this folder: a relative path would be taken twice.
        data_folder = self.settings.data_folder.resolve() / "redis"
        # A short path: unix sockets allow about a hundred characters. The folder is ours alone.
        self._socket_folder = Path(tempfile.mkdtemp(prefix="styleavatar-"))
        socket_path = self._socket_folder / "redis.sock"
        self._start(redis_spec(data_folder, socket_path))
        deadline = time.monotonic() + _REDIS_START_LIMIT_S
        while not redis_answers(redis_url(socket_path)):
            if self._children[0].exit_code is not None or time.monotonic() > deadline:
                raise EngineUnavailableError(
                    f"the embedded Redis does not start with the data in {data_folder}; redis.log"
                    " there says why"
                )
            if self._stop_requested.wait(0.02):
                break
        return redis_url(socket_path)

    def _end_all(self) -> None:
        services = [child for child in self._children if child.spec.name != "redis"]
        for group in (services, [c for c in self._children if c not in services]):
            for child in group:
                child.ask_to_end()
            deadline = time.monotonic() + self.settings.stop_timeout_s
            for child in group:
                child.wait_until_ended(max(0.1, deadline - time.monotonic()))
        self._children.clear()
        if self._socket_folder is not None:
            with contextlib.suppress(OSError):
                shutil.rmtree(self._socket_folder)
        self._held.close()

    def _where_logs_are(self) -> str:
        folder = self.settings.log_folder
        return f"their logs are in {folder}" if folder else "their messages are above"


def _reach_directly(host: str) -> None:
    """Has no proxy asked for the services of this machine, here and in the children."""
    hosts = [host, "127.0.0.1", "localhost"]
    for name in ("no_proxy", "NO_PROXY"):
        known = [each for each in os.environ.get(name, "").split(",") if each]
        os.environ[name] = ",".join(dict.fromkeys([*known, *hosts]))
