# SPDX-License-Identifier: Apache-2.0
"""What the routes work with: built once, handed to each request through the application state."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError

from services.common.job_queue import enqueue_training
from services.common.job_records import JobRecords
from services.common.metrics import GatewayMetrics
from services.common.security import ApiKeys
from services.common.storage import AvatarStore, JobFolders
from services.gateway.places import Places
from services.gateway.settings import GatewaySettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything a route may need.

    Attributes:
        settings: The gateway's settings.
        redis: For routes, which run in threads.
        async_redis: For event streams, which are many.
        records: Job records over ``redis``.
        folders: Files of jobs.
        store: Finished avatars.
        metrics: The gateway's metrics.
        upload_places: Of uploads.
        download_places: Of bundles that are fetched.
        api_keys: Keys that callers must show; None lets everybody in.
    """

    settings: GatewaySettings
    redis: Redis
    async_redis: AsyncRedis
    records: JobRecords
    folders: JobFolders
    store: AvatarStore
    metrics: GatewayMetrics
    upload_places: Places
    download_places: Places
    api_keys: ApiKeys | None

    def enqueue(self, job_id: str) -> None:
        """Puts a recorded job into the queue.

        Where that fails the job is accepted all the same: trainers put back whatever the records
        have and the queue has not, so that a caller who heard of an error and tried again would
        have two.
        """
        try:
            enqueue_training(self.redis, job_id)
        except RedisError as error:
            extra = {"job_id": job_id, "reason": str(error)}
            logger.warning("not queued now; a trainer will find the job", extra=extra)


def get_parts(request: Request) -> Parts:
    """Returns the parts of the application that a request belongs to."""
    return request.app.state.parts


PartsDependency = Annotated[Parts, Depends(get_parts)]


_bearer = HTTPBearer(auto_error=False, description="An API key, where the gateway asks for one.")
KeyDependency = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def require_key(parts: PartsDependency, shown: KeyDependency) -> None:
    """Lets callers with a valid key pass, where keys are asked for.

    Raises:
        AuthenticationError: The key is missing or not known.
    """
    if parts.api_keys is not None:
        parts.api_keys.check(shown.credentials if shown else "")
