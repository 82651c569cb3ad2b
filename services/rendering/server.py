# SPDX-License-Identifier: Apache-2.0
"""Builds the rendering service from its settings and runs it until a signal."""

from __future__ import annotations

import asyncio

from styleavatar.v1 import rendering_service_pb2, rendering_service_pb2_grpc

from services.common.grpc_server import GrpcServer, run_until_signal
from services.common.mailbox import running
from services.common.metrics import RenderingMetrics, serve_metrics
from services.common.security import ServerSecurity
from services.common.storage import AvatarStore
from services.common.worker.options import WorkerOptions
from services.rendering.catalog import AvatarCatalog
from services.rendering.deletion import keep_forgetting
from services.rendering.health import AvatarHealth
from services.rendering.pool.devices import (
    device_names,
    device_reader,
    device_workers,
    engine_bytes,
    open_nvml,
)
from services.rendering.pool.limits import PoolLimits
from services.rendering.pool.pool import RenderPool
from services.rendering.servicer import RenderingServicer
from services.rendering.settings import RenderingSettings
from styleavatar_core.cores import usable_core_count
from styleavatar_core.engine.cache import EngineCache

SERVICE_NAME = rendering_service_pb2.DESCRIPTOR.services_by_name["RenderingService"].full_name
# The largest picture (1024 x 1024 RGB) with room to spare.
SLOT_BYTES = 4 * 1024 * 1024
# Frames at a worker: one batch is rendered, the next lies ready.
SLOT_COUNT = 4


async def run(settings: RenderingSettings) -> None:
    """Serves until SIGTERM or SIGINT; health says SERVING once the workers are ready."""
    nvml = open_nvml()
    read_devices = device_reader(nvml)
    metrics = RenderingMetrics(read_devices=read_devices)
    stop_metrics = serve_metrics(settings.host.strip("[]"), settings.metrics_port)
    options = WorkerOptions(
        "services.rendering.worker",
        options={
            "renderer": settings.renderer,
            "backend": settings.backend,
            "precision": settings.precision,
            "log_level": settings.log_level,
            "log_format": settings.log_format,
        },
        slot_count=SLOT_COUNT,
        slot_bytes=SLOT_BYTES,
        memory_limit_bytes=1_000_000 * settings.worker_memory_limit_mb,
    )
    names = device_names(settings.devices, [index for index, _, _ in read_devices()])
    devices = device_workers(
        options,
        names,
        usable_core_count(),
        settings.worker_count,
        settings.threads_per_worker,
    )
    pool = RenderPool(
        devices,
        PoolLimits(
            settings.engine_bytes_per_worker or engine_bytes(nvml, names, settings.worker_count),
            load_s=settings.load_timeout_s,
            render_s=settings.render_timeout_s,
        ),
        metrics,
        utilization_limit=settings.utilization_limit,
        stand_by=settings.stand_by,
    )
    catalog = AvatarCatalog(AvatarStore(settings.avatars_folder))
    security = ServerSecurity.from_settings(settings)
    server = GrpcServer(
        settings.host,
        settings.port,
        (SERVICE_NAME,),
        security,
        settings.keepalive_s,
        settings.idle_timeout_s,
    )
    health = AvatarHealth(catalog, pool.is_loaded, server.tell_health)
    pool.on_change = catalog.on_change = health.change
    servicer = RenderingServicer(
        catalog,
        pool,
        metrics,
        server.leaving,
        stream_limit=settings.stream_limit,
        frames_per_second=settings.frames_per_second,
        utilization_limit=settings.utilization_limit,
        idle_timeout_s=settings.idle_timeout_s,
    )
    rendering_service_pb2_grpc.add_RenderingServiceServicer_to_server(servicer, server.server)

    async def prepare() -> None:
        await pool.start()
        entries = await asyncio.to_thread(catalog.newest, settings.warm_avatars)
        await pool.warm_up(entries)

    sweeping = keep_forgetting(catalog, pool, EngineCache())
    try:
        async with running(sweeping, health.keep_telling()):
            await run_until_signal(
                server, prepare, lambda: pool.is_usable, pool.stop, settings.drain_timeout_s
            )
    finally:
        stop_metrics()
