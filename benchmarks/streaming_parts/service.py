# SPDX-License-Identifier: Apache-2.0
"""The rendering service as users run it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.supervisor.settings import choose_ports

START_TIMEOUT_S = 300
STANDBY_TIMEOUT_S = 120


@dataclass(frozen=True)
class RunningService:
    """A service.

    Attributes:
        address: ``host:port``.
        channel: To it.
        process: Its front process.
        metrics_url: Where it tells its metrics.
        has_standby: Whether a worker stands by for one that dies.
        scratch: Its folder for temporary files.
    """

    address: str
    channel: grpc.Channel
    process: psutil.Process
    metrics_url: str = ""
    has_standby: bool = False
    scratch: Path = Path()

    def workers(self) -> list[psutil.Process]:
        """Its worker processes; one that stands by is the last."""
        return sorted(self.process.children(), key=psutil.Process.create_time)

    @property
    def worker_count(self) -> int:
        """Workers that serve."""
        return len(self.workers()) - self.has_standby

    def metric(self, name: str) -> float:
        """Reads a metric that has no labels."""
        for line in httpx.get(self.metrics_url).text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        raise LookupError(f"there is no metric {name}")

    def wait_for_standby(self) -> None:
        """Waits until a worker stands by, if one is to."""
        deadline = time.monotonic() + STANDBY_TIMEOUT_S
        name = "styleavatar_rendering_standby_workers"
        while self.has_standby and self.metric(name) < 1 and time.monotonic() < deadline:
            time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Returns ports that nobody listens on."""
    return list(choose_ports("127.0.0.1", {f"port_{index}": 0 for index in range(count)}).values())


def rendering_service(
    data_folder: Path, **settings: object
) -> AbstractContextManager[RunningService]:
    """Runs the rendering service; see :func:`running_service`."""
    return running_service("rendering", data_folder, **{"stand_by": True, **settings})


@contextmanager
def running_service(name: str, data_folder: Path, **settings: object) -> Iterator[RunningService]:
    """Runs a gRPC service as users do, and ends it."""
    port, metrics_port = free_ports(2)
    settings = {"port": port, "metrics_port": metrics_port, **settings}
    variables = {f"STYLEAVATAR_{name}_{k}".upper(): str(v) for k, v in settings.items()}
    variables |= {"STYLEAVATAR_DATA": str(data_folder), "STYLEAVATAR_LOG_LEVEL": "ERROR"}
    scratch = data_folder / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    variables["TMPDIR"] = str(scratch)
    process = subprocess.Popen(
        [sys.executable, "-m", f"services.{name}"], env={**os.environ, **variables}
    )
    address = f"127.0.0.1:{port}"
    try:
        with grpc.insecure_channel(address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest()
            for answer in health.Watch(request, wait_for_ready=True, timeout=START_TIMEOUT_S):
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    break
            yield RunningService(
                address,
                channel,
                psutil.Process(process.pid),
                f"http://127.0.0.1:{metrics_port}/metrics",
                bool(settings.get("stand_by")),
                scratch,
            )
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def memory_mb(process: psutil.Process) -> float:
    """Returns the resident memory of a process."""
    return float(process.memory_info().rss) / 1e6
