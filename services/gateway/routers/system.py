# SPDX-License-Identifier: Apache-2.0
"""Health, metrics, and the page that says what is running."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import grpc
from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse, Response
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from redis.exceptions import RedisError
from rq.worker import Worker

from services.common.job_queue import training_queue
from services.gateway.dependencies import Parts, PartsDependency
from services.gateway.schemas import ProcessView

router = APIRouter(tags=["system"])

_PAGE = Path(__file__).parent.parent / "pages" / "index.html"
_PROBE_TIMEOUT_S = 2.0
_PROBE_KEY = "styleavatar:probe"


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
def page() -> str:
    """Shows what is running, avatars and jobs."""
    return _PAGE.read_text(encoding="utf-8")


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Says that the process lives."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz(parts: PartsDependency) -> JSONResponse:
    """Says whether uploads can be taken: Redis and the data folder can be written."""
    problems = []
    if not _redis_takes_writes(parts):
        problems.append("Redis does not answer, or takes no writes")
    if not os.access(parts.settings.data_folder, os.W_OK):
        problems.append("the data folder cannot be written")
    status = 503 if problems else 200
    return JSONResponse({"status": "; ".join(problems) or "ok"}, status_code=status)


@router.get("/metrics", include_in_schema=False)
def metrics() -> Response:
    """Returns metrics for Prometheus."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/system")
async def system(parts: PartsDependency) -> list[ProcessView]:
    """Lists the parts of the system and whether each of them works."""
    settings = parts.settings
    views = await asyncio.gather(
        run_in_threadpool(_redis_view, parts),
        run_in_threadpool(_trainer_view, parts),
        _grpc_view("tracking", settings.tracking_address),
        _grpc_view("rendering", settings.rendering_address),
    )
    gateway = ProcessView(
        name="gateway", address=f"{settings.host}:{settings.port}", is_healthy=True
    )
    return [gateway, *views]


def _redis_takes_writes(parts: Parts) -> bool:
    """Says so; one that is full, read-only or cannot keep its data answers all the same."""
    try:
        return bool(parts.redis.set(_PROBE_KEY, 1, ex=60))
    except RedisError:
        return False


def _redis_view(parts: Parts) -> ProcessView:
    return ProcessView(name="redis", address="job queue", is_healthy=_redis_takes_writes(parts))


def _trainer_view(parts: Parts) -> ProcessView:
    try:
        queue = training_queue(parts.redis)
        count = Worker.count(queue=queue)
        detail = f"trainers: {count}, jobs waiting: {len(queue)}"
    except RedisError:
        return ProcessView(name="trainer", address="job queue", is_healthy=False)
    return ProcessView(name="trainer", address="job queue", is_healthy=count > 0, detail=detail)


async def _grpc_view(name: str, address: str) -> ProcessView:
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_PROBE_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        return ProcessView(
            name=name, address=address, is_healthy=False, detail=error.code().name.lower()
        )
    is_serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    return ProcessView(name=name, address=address, is_healthy=is_serving)
