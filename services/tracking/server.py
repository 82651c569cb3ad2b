# SPDX-License-Identifier: Apache-2.0
"""Builds the tracking service from its settings and runs it until a signal."""

from __future__ import annotations

from styleavatar.v1 import tracking_service_pb2, tracking_service_pb2_grpc

from services.common.grpc_server import (
    MESSAGE_BYTES_LIMIT,
    GrpcServer,
    channel_options,
    run_until_signal,
)
from services.common.metrics import TrackingMetrics, serve_metrics
from services.common.security import ServerSecurity, key_metadata, open_channel
from services.common.worker.options import WorkerOptions
from services.tracking.pool import TrackingPool
from services.tracking.reenactment import RenderingClient
from services.tracking.servicer import TrackingServicer
from services.tracking.settings import TrackingSettings

# Rendering that was away for long is looked for soon, not after gRPC's two minutes.
_RECONNECTION = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
)
SERVICE_NAME = tracking_service_pb2.DESCRIPTOR.services_by_name["TrackingService"].full_name


async def run(settings: TrackingSettings) -> None:
    """Serves until SIGTERM or SIGINT; health says SERVING once the workers are ready."""
    metrics = TrackingMetrics()
    stop_metrics = serve_metrics(settings.host.strip("[]"), settings.metrics_port)
    options = WorkerOptions(
        "services.tracking.worker",
        options={
            "tracker": settings.tracker,
            "log_level": settings.log_level,
            "log_format": settings.log_format,
        },
        # The solvers' matrices are small: more threads only wait for each other.
        # MediaPipe starts threads for each stream; glibc would keep an arena of memory for each.
        environment={
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "1",
        },
        slot_bytes=MESSAGE_BYTES_LIMIT,
    )
    pool = TrackingPool(options, settings.worker_count, settings.frame_timeout_s, metrics)
    security = ServerSecurity.from_settings(settings)
    options_of_channel = (*channel_options(settings.keepalive_s), *_RECONNECTION)
    channel = open_channel(settings.rendering_address, settings, options_of_channel)
    server = GrpcServer(
        settings.host,
        settings.port,
        (SERVICE_NAME,),
        security,
        settings.keepalive_s,
        settings.idle_timeout_s,
    )
    servicer = TrackingServicer(
        pool,
        RenderingClient(channel, key_metadata(settings)),
        metrics,
        stream_limit=settings.stream_limit,
        idle_timeout_s=settings.idle_timeout_s,
    )
    tracking_service_pb2_grpc.add_TrackingServiceServicer_to_server(servicer, server.server)
    try:
        await run_until_signal(
            server, pool.start, lambda: pool.is_usable, pool.stop, settings.drain_timeout_s
        )
    finally:
        await channel.close()
        stop_metrics()
