# SPDX-License-Identifier: Apache-2.0
"""Starts a service as a user does, and ends it as an orchestrator does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

START_TIMEOUT_S = 90


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ServiceProcess:
    """One running service; ``stop`` gives the exit code."""

    def __init__(self, name: str, data_folder: Path, **settings: object) -> None:
        self.port, self.metrics_port = free_port(), free_port()
        prefix = f"STYLEAVATAR_{name.upper()}_"
        settings = {"port": self.port, "metrics_port": self.metrics_port, **settings}
        variables = {f"{prefix}{key.upper()}": str(value) for key, value in settings.items()}
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by stop()
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"services.{name}"],
            env={**os.environ, "STYLEAVATAR_DATA": str(data_folder), **variables},
            stderr=self._log,
        )
        self.address = f"127.0.0.1:{self.port}"
        self.channel = grpc.insecure_channel(self.address)
        self.log = ""

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
        self._log.seek(0)
        self.log = self._log.read()
        self._log.close()
        assert not alive, "a worker outlived its service"
        return code
