# SPDX-License-Identifier: Apache-2.0
"""A rendering service whose avatars are whole or have one fault each: what goes wrong around it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from styleavatar.v1 import rendering_service_pb2, rendering_service_pb2_grpc

from tests.fakes.bundle import write_fake_bundle
from tests.integration.service_process import ServiceProcess

MARKS = {"anna": 10, "ben": 20, "carla": 30, "dora": 40}
Stub = rendering_service_pb2_grpc.RenderingServiceStub
Request = rendering_service_pb2.StreamFramesRequest


def write_avatars(data: Path) -> Path:
    """Writes those of ``MARKS`` and others with a fault each; returns their folder."""
    folder = data / "avatars"
    for name, mark in MARKS.items():
        write_fake_bundle(folder / name, mark, {"render_s": 0.002, "batch_limit": 4})
    write_fake_bundle(folder / "broken-device", 50, {"device_fails_at": 5})
    write_fake_bundle(folder / "huge", 60, {"out_of_memory": True})
    write_fake_bundle(folder / "huge-engine", 60, {"engine_out_of_memory": True})
    huge_frames = {"memory_fails_at": 0, "tell_closed": True}
    write_fake_bundle(folder / "huge-frames", 60, huge_frames)
    write_fake_bundle(folder / "heavy", 70, {"render_s": 0.05})
    write_fake_bundle(folder / "corrupt", 80)
    weights = folder / "corrupt" / "generator.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    return folder


def start(avatars: Path, **changes: object) -> ServiceProcess:
    settings = {
        "renderer": "tests.fakes.renderer:FakeRenderer",
        "worker_count": 2,
        "stream_limit": 64,
        "utilization_limit": 5,
        "drain_timeout_s": 3,
        **changes,
    }
    service = ServiceProcess("rendering", avatars.parent, **settings)
    try:
        return service.wait_until_serving()
    except BaseException:
        service.stop(signal.SIGKILL)
        raise


def segments() -> set[str]:
    """Shared memory that has a name; semaphores are other programs'."""
    names = os.listdir("/dev/shm")  # noqa: PTH208 - names of the kernel's folder
    return {name for name in names if not name.startswith("sem.")}


@contextmanager
def serving(avatars: Path) -> Iterator[ServiceProcess]:
    """Runs a service that must end well: nothing unforeseen in its log, no memory left behind."""
    shared_memory = segments()
    with start(avatars) as process:
        yield process
        assert process.stop() == 0
    broken = [line for line in process.log.splitlines() if "Traceback" in line]
    assert broken == []
    assert segments() <= shared_memory


def metric(service: ServiceProcess, name: str) -> float:
    text = httpx.get(f"http://127.0.0.1:{service.metrics_port}/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return float(values[f"styleavatar_rendering_{name}"])


def open_streams(service: ServiceProcess) -> float:
    return metric(service, "streams")


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def signal_workers(service: ServiceProcess, number: int) -> None:
    for worker in service.workers():
        worker.send_signal(number)
