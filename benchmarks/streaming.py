# SPDX-License-Identifier: Apache-2.0
"""What streaming costs: the rendering service beside its bare engine, in one run.

python -m benchmarks.streaming --preset lite --json streaming.json
"""

from __future__ import annotations

import argparse
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from styleavatar.v1 import image_pb2, rendering_service_pb2, rendering_service_pb2_grpc

from benchmarks.report import build_report, print_report, write_report
from services.common.face_messages import parameters_to_message
from styleavatar_core.types import FaceParameters
from tests.fakes.nano_bundle import write_nano_bundle

AVATAR_ID = "bench"
WARM_UP_COUNT = 20
START_TIMEOUT_S = 120


def moving_face(frame_index: int) -> FaceParameters:
    """A face that nods, so that no two frames are alike."""
    angle = 0.1 * np.sin(0.2 * frame_index)
    return FaceParameters(
        model_id="builtin-2",
        rotation=np.array([np.cos(angle / 2), np.sin(angle / 2), 0, 0], np.float32),
        translation=np.zeros(3, np.float32),
        scale=0.6,
        expression=np.full(52, 0.1, np.float32),
        eye_rotation=np.zeros((2, 2), np.float32),
        frame_index=frame_index,
    )


@contextmanager
def rendering_service(data_folder: Path, **settings: object) -> Iterator[grpc.Channel]:
    """Runs the service as users do, and ends it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"port": port, "metrics_port": 0, **settings}
    variables = {f"STYLEAVATAR_RENDERING_{k.upper()}": str(v) for k, v in settings.items()}
    variables |= {"STYLEAVATAR_DATA": str(data_folder), "STYLEAVATAR_LOG_LEVEL": "WARNING"}
    process = subprocess.Popen(
        [sys.executable, "-m", "services.rendering"], env={**os.environ, **variables}
    )
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest()
            for answer in health.Watch(request, wait_for_ready=True, timeout=START_TIMEOUT_S):
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    break
            yield channel
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


class Stream:
    """One stream, frame by frame."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._asked: queue.Queue[rendering_service_pb2.StreamFramesRequest | None] = queue.Queue()
        config = rendering_service_pb2.RenderConfig(
            avatar_id=AVATAR_ID,
            image_format=image_pb2.IMAGE_FORMAT_JPEG,
            frame_mode=image_pb2.FRAME_MODE_EVERY_FRAME,
            driver=rendering_service_pb2.DRIVER_SAME_PERSON,
        )
        self._asked.put(rendering_service_pb2.StreamFramesRequest(config=config))
        stub = rendering_service_pb2_grpc.RenderingServiceStub(channel)
        self._answers = stub.StreamFrames(iter(self._asked.get, None))
        next(self._answers)

    def send(self, frame_index: int) -> None:
        """Asks for a frame."""
        message = parameters_to_message(moving_face(frame_index))
        self._asked.put(rendering_service_pb2.StreamFramesRequest(parameters=message))

    def receive(self) -> rendering_service_pb2.RenderedFrame:
        """Waits for the next frame."""
        return next(self._answers).frame

    def close(self) -> None:
        """Ends the stream."""
        self._asked.put(None)
        list(self._answers)


def durations_ms(work: Callable[[int], object], count: int) -> list[float]:
    """Times ``work(index)``, after a warm-up."""
    for index in range(WARM_UP_COUNT):
        work(index)
    times = []
    for index in range(count):
        started = time.perf_counter()
        work(index)
        times.append(1e3 * (time.perf_counter() - started))
    return times


def measure_bare(bundle: Path, backend: str, count: int) -> float:
    """Frames per second of the engine and its conditioning alone, in this process."""
    from styleavatar_core.engine.avatar_renderer import AvatarRenderer

    renderer = AvatarRenderer(bundle, backend=backend)
    times = durations_ms(lambda index: renderer.render(moving_face(index)), count)
    renderer.close()
    return 1e3 * count / sum(times)


def measure_stream(channel: grpc.Channel, count: int) -> dict[str, float]:
    """Latency of a lone frame beside its engine time, and throughput with frames in flight."""
    started = time.perf_counter()
    stream = Stream(channel)
    stream.send(0)
    stream.receive()
    figures = {"first_load_and_frame_ms": 1e3 * (time.perf_counter() - started)}
    overheads: list[float] = []

    def one(index: int) -> None:
        begun = time.perf_counter()
        stream.send(index)
        stages = stream.receive().stage_durations
        inside = stages.conditioning.ToNanoseconds() + stages.network.ToNanoseconds()
        overheads.append(1e3 * (time.perf_counter() - begun) - inside / 1e6)

    durations_ms(one, count)
    overheads = overheads[WARM_UP_COUNT:]
    figures["overhead_ms_p50"] = float(np.percentile(overheads, 50))
    figures["overhead_ms_p99"] = float(np.percentile(overheads, 99))

    in_flight = 3
    for index in range(in_flight):
        stream.send(index)
    begun = time.perf_counter()
    for index in range(count):
        stream.send(index)
        stream.receive()
    figures["frames_per_second"] = count / (time.perf_counter() - begun)
    for _ in range(in_flight):
        stream.receive()
    stream.close()
    return figures


def measure_first_frames(channel: grpc.Channel, count: int) -> list[float]:
    """Milliseconds from opening a stream to its first frame, the avatar being loaded."""

    def one(index: int) -> None:
        stream = Stream(channel)
        stream.send(index)
        stream.receive()
        stream.close()

    return durations_ms(one, count)


def main() -> None:
    """Measures, prints, and writes JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="lite", help="networks of the avatar (untrained)")
    parser.add_argument("--backend", default="auto", choices=("auto", "torch", "onnxruntime"))
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="cheap values, for tests")
    options = parser.parse_args()
    count = 10 if options.quick else options.frames
    preset = "nano" if options.quick else options.preset
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_nano_bundle(Path(folder) / "avatars" / AVATAR_ID, preset=preset)
        bare_fps = measure_bare(bundle, options.backend, count)
        with rendering_service(Path(folder), backend=options.backend) as channel:
            figures = measure_stream(channel, count)
            first = measure_first_frames(channel, max(5, count // 10))
    figures["bare_frames_per_second"] = bare_fps
    figures["throughput_ratio"] = figures["frames_per_second"] / bare_fps
    figures["time_to_first_frame_ms_p50"] = float(np.percentile(first, 50))
    report = build_report(
        "streaming", figures, {"preset": preset, "backend": options.backend, "frames": count}
    )
    print_report(report)
    if options.json:
        write_report(report, options.json)


if __name__ == "__main__":
    main()
