# SPDX-License-Identifier: Apache-2.0
"""Starts a service as a user does, and ends it as an orchestrator does."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import cached_property
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.supervisor.settings import hold_ports

START_TIMEOUT_S = 90
# Tests say themselves how many workers they mean: they must not depend on the machine's cores.
OWN_SETTINGS: dict[str, dict[str, object]] = {"rendering": {"worker_count": 1}}


# To the end of the tests: another of them, or of their services, would be given the port.
HELD_PORTS = contextlib.ExitStack()
atexit.register(HELD_PORTS.close)


def free_port() -> int:
    return HELD_PORTS.enter_context(hold_ports("127.0.0.1", {"port": 0}))["port"]


class ServiceProcess:
    """One running service on free ports of its own choice; ``stop`` gives the exit code.

    As a ``with`` block it is killed at the end of it unless it was stopped there.

    Attributes:
        log: What it wrote to stderr, after ``stop``.
    """

    def __init__(self, name: str, data_folder: Path, **settings: object) -> None:
        settings = {"port": 0, "metrics_port": 0, **OWN_SETTINGS.get(name, {}), **settings}
        prefix = f"STYLEAVATAR_{name.upper()}_"
        variables = {f"{prefix}{key.upper()}": str(value) for key, value in settings.items()}
        variables |= {"STYLEAVATAR_DATA": str(data_folder), "STYLEAVATAR_LOG_FORMAT": "json"}
        self.log = ""
        self._log_file = tempfile.NamedTemporaryFile("r")  # noqa: SIM115 - closed by stop()
        with Path(self._log_file.name).open("w") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"services.{name}"],
                env={**os.environ, **variables},
                stderr=sink,
            )

    def __enter__(self) -> ServiceProcess:
        return self

    def __exit__(self, *error: object) -> None:
        if not self._log_file.closed:
            self.stop(signal.SIGKILL)

    @cached_property
    def address(self) -> str:
        return f"127.0.0.1:{self._logged_port('listening')}"

    @cached_property
    def metrics_port(self) -> int:
        return self._logged_port("serving metrics")

    @cached_property
    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(self.address)

    def _logged_port(self, message: str) -> int:
        """Waits until the service has said where it listens."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            text = Path(self._log_file.name).read_text()
            for line in text.splitlines():
                if line.startswith("{") and line.endswith("}"):
                    record = json.loads(line)
                    if record["message"] == message:
                        return int(record["port"])
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"the service never logged {message!r}: {text}")

    def wait_until_serving(self) -> ServiceProcess:
        stub = health_pb2_grpc.HealthStub(self.channel)
        request = health_pb2.HealthCheckRequest()
        for answer in stub.Watch(request, wait_for_ready=True, timeout=START_TIMEOUT_S):
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return self
        raise AssertionError("the health stream ended before the service was ready")

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.channel.close()
        workers = self.workers() if self.process.poll() is None else []
        self.process.send_signal(number)
        code = self.process.wait(timeout=30)
        _, alive = psutil.wait_procs(workers, timeout=5)
        self.log = Path(self._log_file.name).read_text()
        self._log_file.close()
        assert not alive, "a worker outlived its service"
        return code
