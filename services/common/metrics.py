# SPDX-License-Identifier: Apache-2.0
"""Every Prometheus metric of the system, by service.

Units are seconds and bytes; buckets of frame times are chosen for 30 frames per second (33 ms).
Nothing is labelled by avatar, stream, job or client: labels stay bounded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client import start_http_server as _start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from styleavatar_core.errors import ConflictError

logger = logging.getLogger(__name__)

FRAME_BUCKETS_S = (
    *(0.001, 0.002, 0.005, 0.010, 0.015, 0.020, 0.025, 0.033, 0.040, 0.050),
    *(0.067, 0.100, 0.200, 0.500, 1.0, 2.0),
)
# Why the rendering service drops frames, as it tells their callers too.
DROP_REASONS = ("superseded", "worker_lost", "slow_reader", "late")
BATCH_BUCKETS = (1, 2, 3, 4)
LOAD_BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
REQUEST_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class RenderingMetrics:
    """What the rendering service measures."""

    def __init__(
        self,
        registry: CollectorRegistry = REGISTRY,
        read_devices: Callable[[], Iterable[tuple[int, int, float]]] = tuple,
    ) -> None:
        """Registers the metrics.

        Args:
            registry: Where.
            read_devices: Gives index, used bytes and busy share of each GPU.
        """
        registry.register(_DeviceMetrics(read_devices))
        prefix = "styleavatar_rendering_"
        self.streams = Gauge(f"{prefix}streams", "Open streams.", registry=registry)
        self.frames = Counter(f"{prefix}frames", "Frames answered.", registry=registry)
        self.dropped_frames = Counter(
            f"{prefix}dropped_frames", "Frames dropped.", ["reason"], registry=registry
        )
        for reason in DROP_REASONS:
            self.dropped_frames.labels(reason)  # 0 is told too, before there is one
        self.frame_duration = Histogram(
            f"{prefix}frame_duration_seconds",
            "Time of one frame by stage: queue, conditioning, network, encoding, total.",
            ["stage"],
            buckets=FRAME_BUCKETS_S,
            registry=registry,
        )
        self.frame_interval = Histogram(
            f"{prefix}frame_interval_seconds",
            "Time between consecutive answers of a stream.",
            buckets=FRAME_BUCKETS_S,
            registry=registry,
        )
        self.queued_frames = Gauge(
            f"{prefix}queued_frames",
            "Frames that have come and that no worker has taken yet.",
            registry=registry,
        )
        self.batch_size = Histogram(
            f"{prefix}batch_size",
            "Frames of an avatar that a worker rendered at once, counted for each of them.",
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self.first_frame = Histogram(
            f"{prefix}first_frame_duration_seconds",
            "Time from the config of a stream to its first frame.",
            buckets=LOAD_BUCKETS_S,
            registry=registry,
        )
        self.avatar_load = Histogram(
            f"{prefix}avatar_load_duration_seconds",
            "Time to load an avatar into a worker.",
            buckets=LOAD_BUCKETS_S,
            registry=registry,
        )
        self.loaded_avatars = Gauge(
            f"{prefix}loaded_avatars", "Avatars held ready by the workers.", registry=registry
        )
        self.avatar_uses = Counter(
            f"{prefix}avatar_uses",
            "Streams opened, by whether a worker held the avatar: hit, miss.",
            ["cache"],
            registry=registry,
        )
        self.evicted_avatars = Counter(
            f"{prefix}evicted_avatars", "Avatars put out for others.", registry=registry
        )
        self.moved_streams = Counter(
            f"{prefix}moved_streams",
            "Streams that went to another worker when theirs had died.",
            registry=registry,
        )
        self.refused_streams = Counter(
            f"{prefix}refused_streams",
            "Streams refused, by reason: limit, capacity.",
            ["reason"],
            registry=registry,
        )
        self.utilization = Gauge(
            f"{prefix}utilization",
            "Share of the workers' measured time that open streams need.",
            registry=registry,
        )
        self.worker_memory = Gauge(
            f"{prefix}worker_memory_bytes", "Memory of all workers.", registry=registry
        )
        self.standby_workers = Gauge(
            f"{prefix}standby_workers", "Workers that stand by, warm.", registry=registry
        )
        self.engine_bytes = Gauge(
            f"{prefix}engine_bytes", "Memory of the avatars held ready.", registry=registry
        )
        self.worker_restarts = Counter(
            f"{prefix}worker_restarts", "Worker processes replaced.", registry=registry
        )


class _DeviceMetrics:
    """GPUs, asked whenever somebody asks for metrics."""

    def __init__(self, read_devices: Callable[[], Iterable[tuple[int, int, float]]]) -> None:
        self._read_devices = read_devices

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics as they are now."""
        prefix = "styleavatar_rendering_device_"
        used = GaugeMetricFamily(f"{prefix}memory_bytes", "Memory in use.", labels=["device"])
        busy = GaugeMetricFamily(
            f"{prefix}utilization", "Share of the time that it was busy.", labels=["device"]
        )
        for index, used_bytes, share in self._read_devices():
            used.add_metric([str(index)], used_bytes)
            busy.add_metric([str(index)], share)
        yield used
        yield busy


class TrackingMetrics:
    """What the tracking service measures."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        prefix = "styleavatar_tracking_"
        self.streams = Gauge(f"{prefix}streams", "Open streams.", ["rpc"], registry=registry)
        self.frames = Counter(
            f"{prefix}frames",
            "Frames worked on, by result: face, no_face, failure.",
            ["result"],
            registry=registry,
        )
        self.dropped_frames = Counter(
            f"{prefix}dropped_frames", "Frames dropped.", ["reason"], registry=registry
        )
        self.frame_duration = Histogram(
            f"{prefix}frame_duration_seconds",
            "Time of one frame by stage: decoding, tracking, total.",
            ["stage"],
            buckets=FRAME_BUCKETS_S,
            registry=registry,
        )
        self.worker_restarts = Counter(
            f"{prefix}worker_restarts", "Worker processes replaced.", registry=registry
        )


class GatewayMetrics:
    """What the gateway measures."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        prefix = "styleavatar_gateway_"
        self.requests = Counter(
            f"{prefix}requests",
            "Requests answered, by route template.",
            ["method", "route", "status"],
            registry=registry,
        )
        self.request_duration = Histogram(
            f"{prefix}request_duration_seconds",
            "Time of one request, by route template.",
            ["method", "route"],
            buckets=REQUEST_BUCKETS_S,
            registry=registry,
        )
        self.upload_bytes = Counter(
            f"{prefix}upload_bytes", "Bytes of video received.", registry=registry
        )
        self.refused_uploads = Counter(
            f"{prefix}refused_uploads", "Uploads refused.", ["reason"], registry=registry
        )
        self.event_streams = Gauge(
            f"{prefix}event_streams", "Open streams of server-sent events.", registry=registry
        )


class TrainingMetrics:
    """What the trainer measures: read from the job records whenever somebody asks.

    A job runs in a process of its own and may change trainers; its record outlives them all.
    """

    def __init__(
        self,
        registry: CollectorRegistry = REGISTRY,
        count_jobs: Callable[[], tuple[Mapping[str, int], int]] = lambda: ({}, 0),
    ) -> None:
        """Registers the metrics.

        Args:
            registry: Where.
            count_jobs: Gives the number of jobs by state in lower case, and of resumptions.
        """
        self._count_jobs = count_jobs
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics as they are now."""
        prefix = "styleavatar_training_"
        counts, resume_count = self._count_jobs()
        ended = CounterMetricFamily(
            f"{prefix}jobs", "Known jobs that reached a final state.", labels=["state"]
        )
        for state in ("succeeded", "failed", "canceled"):
            ended.add_metric([state], counts.get(state, 0))
        yield ended
        for state, help_text in (("queued", "Jobs waiting."), ("running", "Jobs at work.")):
            yield GaugeMetricFamily(f"{prefix}{state}_jobs", help_text, counts.get(state, 0))
        yield CounterMetricFamily(
            f"{prefix}resumed_jobs", "Interruptions after which a known job went on.", resume_count
        )


def serve_metrics(
    host: str, port: int, registry: CollectorRegistry = REGISTRY
) -> Callable[[], None]:
    """Serves ``/metrics`` over HTTP from a thread.

    Args:
        host: Address to listen on.
        port: Port; 0 takes a free one.
        registry: What to serve.

    Returns:
        Ends it.

    Raises:
        ConflictError: When the port is taken.
    """
    try:
        server, thread = _start_http_server(port, host, registry)
    except OSError as error:
        raise ConflictError(
            f"Cannot serve metrics on {host}:{port}: {error.strerror}. Choose another port."
        ) from error
    logger.info("serving metrics", extra={"port": server.server_port})

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
