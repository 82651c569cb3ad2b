# SPDX-License-Identifier: Apache-2.0
"""Puts the gateway together: parts, routes, errors, metrics."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline
from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as AsyncRedis
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.common.job_records import JobRecords
from services.common.logging import request_id
from services.common.metrics import GatewayMetrics
from services.common.redis_client import ANSWER_LIMIT_S, connect_redis
from services.common.security import ApiKeys
from services.common.storage import AvatarStore, JobFolders, new_id
from services.gateway.dependencies import Parts, require_key
from services.gateway.description import describe_problems
from services.gateway.errors import answer_error, install_error_handlers
from services.gateway.housekeeping import start_housekeeping
from services.gateway.other_sites import refuse_other_sites
from services.gateway.places import Places
from services.gateway.routers import avatars, jobs, system
from services.gateway.settings import GatewaySettings
from styleavatar_core import __version__
from styleavatar_core.errors import ConflictError

_DESCRIPTION = (
    "A portrait video in, a live avatar out. Every picture of an avatar is synthetic: answers that"
    " carry one have the header `X-Synthetic: true`."
)
# A person waits for these answers; the trainer is the one with patience.
_REDIS_RETRIES = 3
# However many follow jobs, they take turns: Redis and this process have only so many connections.
_FOLLOWERS_CONNECTIONS = 16
# A caller may name any method; labels of metrics stay bounded.
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


def make_app(settings: GatewaySettings, metrics: GatewayMetrics | None = None) -> FastAPI:
    """Builds the gateway.

    Args:
        settings: What the environment says.
        metrics: Where to count; by default the process's own registry.

    Returns:
        The application, ready for uvicorn.

    Raises:
        ConflictError: The data folder cannot be written.
        InvalidInputError: The file of API keys cannot be read.
    """
    folders, store = JobFolders(settings.jobs_folder), AvatarStore(settings.avatars_folder)
    _prepare(folders, store, settings)
    redis = connect_redis(settings.redis_url, retries=_REDIS_RETRIES)
    pool = BlockingConnectionPool.from_url(
        settings.redis_url,
        max_connections=_FOLLOWERS_CONNECTIONS,
        socket_timeout=ANSWER_LIMIT_S,
        socket_connect_timeout=ANSWER_LIMIT_S,
    )
    parts = Parts(
        settings=settings,
        redis=redis,
        async_redis=AsyncRedis.from_pool(pool),
        records=JobRecords(redis),
        folders=folders,
        store=store,
        metrics=metrics or GatewayMetrics(),
        upload_places=Places(
            settings.upload_count_limit,
            taken_by="as many videos are being uploaded",
            reason="TOO_MANY_UPLOADS",
        ),
        download_places=Places(
            settings.download_count_limit,
            taken_by="as many avatars are being fetched",
            reason="TOO_MANY_DOWNLOADS",
        ),
        api_keys=ApiKeys(settings.api_keys_file) if settings.api_keys_file else None,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        housekeeping_is_over = start_housekeeping(parts)
        yield
        housekeeping_is_over.set()
        await parts.async_redis.aclose()
        redis.close()

    # The pages of the description come from here: no network of others, nor their scripts.
    app = FastAPIOffline(
        redoc_url=None,
        title="StyleAvatar",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
    )
    app.state.parts = parts
    app.include_router(system.router)
    for router in (avatars.router, jobs.router):
        guards = [Depends(refuse_other_sites), Depends(require_key)]
        app.include_router(router, dependencies=guards)
    describe_problems(app)
    install_error_handlers(app)
    app.add_middleware(RequestObserver, metrics=parts.metrics)
    return app


class RequestObserver:
    """Gives each request an id, counts and times it, and answers errors that nobody expected."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id.set(new_id("request"))
        start_time = time.perf_counter()
        status = 0

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", request_id.get().encode()))
            await send(message)

        try:
            await self._app(scope, receive, send_observed)
        except Exception as error:
            # Starlette's own last handler would answer and then raise again: a second stack trace.
            if status:
                raise
            await answer_error(error)(scope, receive, send_observed)
        finally:
            self._count(scope, status, time.perf_counter() - start_time)

    def _count(self, scope: Scope, status: int, duration_s: float) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.request_duration.labels(method, route).observe(duration_s)


def _prepare(folders: JobFolders, store: AvatarStore, settings: GatewaySettings) -> None:
    """Makes the folders; what a gateway was deleting when it ended goes now."""
    try:
        for place in (folders, store):
            place.root.mkdir(parents=True, exist_ok=True)
            place.sweep()
    except OSError as error:
        raise ConflictError(
            f"the data folder {settings.data_folder} cannot be written: {error.strerror}; set"
            " STYLEAVATAR_DATA to one that can"
        ) from error
