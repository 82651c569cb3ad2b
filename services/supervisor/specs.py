# SPDX-License-Identifier: Apache-2.0
"""The processes of the system: commands, ports and variables, the same as docker-compose's."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from redis import Redis
from redis.exceptions import RedisError

from services.common.redis_client import connect_redis
from services.common.settings import DATA_VARIABLE, REDIS_VARIABLE
from services.supervisor.child import ChildSpec
from services.supervisor.redis_server import redis_command
from services.supervisor.settings import SupervisorSettings

_PROBE_TIMEOUT_S = 2.0


def redis_spec(data_folder: Path, socket_path: Path) -> ChildSpec:
    """Returns the embedded Redis."""
    url = redis_url(socket_path)
    return ChildSpec(
        name="redis",
        command=redis_command(data_folder, socket_path),
        environment={},
        address=url,
        is_ready=lambda: redis_answers(url),
    )


def redis_url(socket_path: Path) -> str:
    """Returns the URL of a Redis behind a unix socket."""
    return f"unix://{socket_path}"


def address_to_reach(host: str) -> str:
    """Returns the address of this machine under which what listens on ``host`` is reached."""
    return "127.0.0.1" if host in ("0.0.0.0", "") else host


def service_specs(settings: SupervisorSettings, redis: str) -> list[ChildSpec]:
    """Returns gateway, tracking, rendering and training, in the order in which they start.

    Args:
        settings: With ports chosen.
        redis: URL of Redis.
    """
    host = settings.host
    here = address_to_reach(host)
    tracking = f"{here}:{settings.tracking_port}"
    rendering = f"{here}:{settings.rendering_port}"
    gateway = f"http://{here}:{settings.gateway_port}"
    metrics = f"http://{here}:{settings.training_metrics_port}/metrics"
    plans: list[tuple[str, dict[str, object], str, Callable[[], bool]]] = [
        (
            "gateway",
            {
                "HOST": host,
                "PORT": settings.gateway_port,
                "TRACKING_ADDRESS": tracking,
                "RENDERING_ADDRESS": rendering,
            },
            gateway,
            lambda: http_answers(f"{gateway}/readyz"),
        ),
        (
            "tracking",
            {
                "HOST": host,
                "PORT": settings.tracking_port,
                "METRICS_PORT": settings.tracking_metrics_port,
                "RENDERING_ADDRESS": rendering,
            },
            tracking,
            lambda: grpc_serves(tracking),
        ),
        (
            "rendering",
            {
                "HOST": host,
                "PORT": settings.rendering_port,
                "METRICS_PORT": settings.rendering_metrics_port,
            },
            rendering,
            lambda: grpc_serves(rendering),
        ),
        (
            "training",
            {"HOST": host, "METRICS_PORT": settings.training_metrics_port},
            "job queue",
            lambda: http_answers(metrics),
        ),
    ]
    shared = {
        REDIS_VARIABLE: redis,
        DATA_VARIABLE: str(settings.data_folder),
        "STYLEAVATAR_LOG_LEVEL": settings.log_level,
        "STYLEAVATAR_LOG_FORMAT": settings.log_format,
    }
    return [
        ChildSpec(
            name=name,
            command=[sys.executable, "-m", f"services.{name}"],
            environment=shared
            | {f"STYLEAVATAR_{name.upper()}_{key}": str(value) for key, value in own.items()},
            address=address,
            is_ready=is_ready,
        )
        for name, own, address, is_ready in plans
    ]


def redis_answers(url: str) -> bool:
    """Says whether a Redis answers."""
    redis: Redis = connect_redis(url, retries=0)
    try:
        return bool(redis.ping())
    except (RedisError, OSError):
        return False
    finally:
        redis.close()


def http_answers(url: str) -> bool:
    """Says whether a URL answers with success."""
    try:
        with urllib.request.urlopen(url, timeout=_PROBE_TIMEOUT_S) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def grpc_serves(address: str) -> bool:
    """Says whether a gRPC server's health is SERVING."""
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=_PROBE_TIMEOUT_S)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
