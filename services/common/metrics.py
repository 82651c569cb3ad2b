# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics of the services; those that are read when asked for are in ``collectors``.

Units are seconds and bytes; buckets of frame times are chosen for 30 frames per second (33 ms).
Nothing is labelled by avatar, stream, job or client: labels stay bounded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client import start_http_server as _start_http_server

from services.common.collectors import DeviceMetrics
from styleavatar_core.errors import ConflictError

logger = logging.getLogger(__name__)

FRAME_BUCKETS_S = (
    *(0.001, 0.002, 0.004, 0.006, 0.008, 0.010, 0.0125, 0.016, 0.020, 0.025, 0.033, 0.040, 0.050),
    *(0.066, 0.100, 0.250),
)
# Of a first frame, whose avatar may have to be loaded.
FIRST_FRAME_BUCKETS_S = (0.016, 0.033, 0.066, 0.100, 0.250, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
# Why the rendering service drops frames, as it tells their callers too.
DROP_REASONS = ("superseded", "worker_lost", "slow_reader", "late")
BATCH_BUCKETS = (1, 2, 3, 4)
LOAD_BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
REQUEST_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class _Maker:
    """Makes the metrics of one service."""

    def __init__(self, registry: CollectorRegistry, service: str) -> None:
        self._registry = registry
        self._prefix = f"styleavatar_{service}_"

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(self._prefix + name, text, labels, registry=self._registry)

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(self._prefix + name, text, labels, registry=self._registry)

    def histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(
            self._prefix + name, text, labels, buckets=buckets, registry=self._registry
        )


class RenderingMetrics:
    """What the rendering service measures."""

    def __init__(
        self,
        registry: CollectorRegistry = REGISTRY,
        read_devices: Callable[[], Iterable[tuple[int, int | None, float | None]]] = tuple,
    ) -> None:
        """Registers the metrics.

        Args:
            registry: Where.
            read_devices: Gives index, used bytes and busy share of each GPU; None of what it does
                not tell.
        """
        registry.register(DeviceMetrics(read_devices))
        new = _Maker(registry, "rendering")
        self.streams = new.gauge("streams", "Open streams.")
        self.frames = new.counter("frames", "Frames answered.")
        self.dropped_frames = new.counter("dropped_frames", "Frames dropped.", "reason")
        for reason in DROP_REASONS:
            self.dropped_frames.labels(reason)  # 0 is told too, before there is one
        self.frame_duration = new.histogram(
            "frame_duration_seconds",
            "Time of one frame by stage: queue, conditioning, network, encoding, total.",
            FRAME_BUCKETS_S,
            "stage",
        )
        self.frame_interval = new.histogram(
            "frame_interval_seconds",
            "Time between consecutive answers of a stream.",
            FRAME_BUCKETS_S,
        )
        self.queued_frames = new.gauge(
            "queued_frames", "Frames that have come and that no worker has taken yet."
        )
        self.batch_size = new.histogram(
            "batch_size",
            "Frames of an avatar that a worker rendered at once, counted for each of them.",
            BATCH_BUCKETS,
        )
        self.first_frame = new.histogram(
            "first_frame_duration_seconds",
            "Time from the config of a stream to its first frame.",
            FIRST_FRAME_BUCKETS_S,
        )
        self.avatar_load = new.histogram(
            "avatar_load_duration_seconds", "Time to load an avatar into a worker.", LOAD_BUCKETS_S
        )
        self.failed_loads = new.counter(
            "failed_avatar_loads",
            "Avatars that a worker could not load, or died of.",
        )
        self.loaded_avatars = new.gauge("loaded_avatars", "Avatars held ready by the workers.")
        self.avatar_uses = new.counter(
            "avatar_uses",
            "Streams opened, by whether a worker held the avatar: hit, miss.",
            "cache",
        )
        self.evicted_avatars = new.counter("evicted_avatars", "Avatars put out for others.")
        self.moved_streams = new.counter(
            "moved_streams", "Streams that went to another worker when theirs had died."
        )
        self.refused_streams = new.counter(
            "refused_streams", "Streams refused, by reason: limit, capacity.", "reason"
        )
        self.refused_frames = new.counter(
            "refused_frames", "Single frames refused because others waited."
        )
        self.utilization = new.gauge(
            "utilization", "Share of the workers' measured time that open streams need."
        )
        self.worker_memory = new.gauge("worker_memory_bytes", "Memory of all workers.")
        self.standby_workers = new.gauge("standby_workers", "Workers that stand by, warm.")
        self.engine_bytes = new.gauge("engine_bytes", "Memory of the avatars held ready.")
        self.worker_restarts = new.counter("worker_restarts", "Worker processes replaced.")


class TrackingMetrics:
    """What the tracking service measures."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        new = _Maker(registry, "tracking")
        self.streams = new.gauge("streams", "Open streams.", "rpc")
        self.frames = new.counter(
            "frames", "Frames worked on, by result: face, no_face, failure.", "result"
        )
        self.dropped_frames = new.counter("dropped_frames", "Frames dropped.", "reason")
        self.frame_duration = new.histogram(
            "frame_duration_seconds",
            "Time of one frame by stage: decoding, tracking, total.",
            FRAME_BUCKETS_S,
            "stage",
        )
        self.worker_restarts = new.counter("worker_restarts", "Worker processes replaced.")


class GatewayMetrics:
    """What the gateway measures."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        new = _Maker(registry, "gateway")
        self.requests = new.counter(
            "requests", "Requests answered, by route template.", "method", "route", "status"
        )
        self.request_duration = new.histogram(
            "request_duration_seconds",
            "Time of one request, by route template.",
            REQUEST_BUCKETS_S,
            "method",
            "route",
        )
        self.upload_bytes = new.counter("upload_bytes", "Bytes of video received.")
        self.refused_uploads = new.counter("refused_uploads", "Uploads refused.", "reason")
        self.event_streams = new.gauge("event_streams", "Open streams of server-sent events.")


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
