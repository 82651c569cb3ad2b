# SPDX-License-Identifier: Apache-2.0
"""The rendering service as users run it, and callers of it."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx
import numpy as np
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc
from styleavatar.v1 import image_pb2, rendering_service_pb2, rendering_service_pb2_grpc

from services.common.face_messages import parameters_to_message
from styleavatar_core.face3d.builtin import BUILTIN_MODEL_ID
from styleavatar_core.types import FaceParameters

START_TIMEOUT_S = 300
STANDBY_TIMEOUT_S = 120
STREAM_TIMEOUT_S = 600

Request = rendering_service_pb2.StreamFramesRequest


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
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


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


def moving_face(frame_index: int) -> FaceParameters:
    """A face that nods, so that no two frames are alike."""
    angle = 0.1 * np.sin(0.2 * frame_index)
    return FaceParameters(
        model_id=BUILTIN_MODEL_ID,
        rotation=np.array([np.cos(angle / 2), np.sin(angle / 2), 0, 0], np.float32),
        translation=np.zeros(3, np.float32),
        scale=0.6,
        expression=np.full(52, 0.1, np.float32),
        eye_rotation=np.zeros((2, 2), np.float32),
        frame_index=frame_index,
    )


def face_request(frame_index: int) -> Request:
    """Asks for a frame."""
    return Request(parameters=parameters_to_message(moving_face(frame_index)))


def config_request(avatar_id: str, **changes: object) -> Request:
    """Opens a stream; every frame is answered unless the changes say otherwise."""
    values = {
        "avatar_id": avatar_id,
        "image_format": image_pb2.IMAGE_FORMAT_JPEG,
        "frame_mode": image_pb2.FRAME_MODE_EVERY_FRAME,
        "driver": rendering_service_pb2.DRIVER_SAME_PERSON,
        **changes,
    }
    return Request(config=rendering_service_pb2.RenderConfig(**values))


class Stream:
    """One stream, frame by frame."""

    def __init__(self, channel: grpc.Channel, avatar_id: str, **config: object) -> None:
        self._asked: queue.Queue[Request | None] = queue.Queue()
        self._asked.put(config_request(avatar_id, **config))
        stub = rendering_service_pb2_grpc.RenderingServiceStub(channel)
        self._answers = stub.StreamFrames(iter(self._asked.get, None))
        next(self._answers)

    def send(self, frame_index: int) -> float:
        """Asks for a frame; returns ``time.perf_counter()`` when its face was there to be sent."""
        request = face_request(frame_index)
        made_s = time.perf_counter()
        self._asked.put(request)
        return made_s

    def receive(self) -> rendering_service_pb2.RenderedFrame:
        """Waits for the next frame."""
        return next(self._answers).frame

    def close(self) -> None:
        """Ends the stream."""
        self._asked.put(None)
        list(self._answers)


@dataclass
class LiveResult:
    """What a live caller saw.

    Attributes:
        arrivals_s: ``time.perf_counter()`` of each picture.
        refused_s: Time until it was refused; None when it was served.
    """

    arrivals_s: list[float] = field(default_factory=list)
    refused_s: float | None = None

    def intervals_ms(self) -> list[float]:
        """Times between pictures, without the first ones."""
        return [1e3 * float(step) for step in np.diff(self.arrivals_s[5:])]


async def live_stream(
    address: str, avatar_id: str, seconds: float, frames_per_second: int
) -> LiveResult:
    """Sends frames as a camera does and notes when pictures come."""
    result = LiveResult()
    async with grpc.aio.insecure_channel(address) as channel:
        stub = rendering_service_pb2_grpc.RenderingServiceStub(channel)
        call = stub.StreamFrames(timeout=STREAM_TIMEOUT_S)
        started = time.perf_counter()
        config = config_request(
            avatar_id,
            frame_mode=image_pb2.FRAME_MODE_LATEST_FRAME,
            frames_per_second=frames_per_second,
        )

        async def send() -> None:
            begun = time.perf_counter()
            for index in range(round(seconds * frames_per_second)):
                await call.write(face_request(index))
                due = begun + (index + 1) / frames_per_second
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await call.done_writing()

        try:
            await call.write(config)
            await call.read()
            sending = asyncio.create_task(send())
            while (response := await call.read()) is not grpc.aio.EOF:
                if response.HasField("frame"):
                    result.arrivals_s.append(time.perf_counter())
            await sending
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            result.refused_s = time.perf_counter() - started
    return result
