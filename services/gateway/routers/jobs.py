# SPDX-License-Identifier: Apache-2.0
"""``/v1/training-jobs``: follow, cancel and retry the making of an avatar."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import ValidationError
from redis.exceptions import RedisError
from sse_starlette import EventSourceResponse, ServerSentEvent

from services.common.job_queue import withdraw_training
from services.common.job_records import events_key
from services.common.jobs import JobState, TrainingJob
from services.gateway.dependencies import Parts, PartsDependency
from services.gateway.routers.avatars import SYNTHETIC
from services.gateway.schemas import JobView
from styleavatar_core.errors import AssetError, ConflictError, InvalidInputError, NotFoundError

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/v1/training-jobs", tags=["training jobs"])

_EVENT_ID = re.compile(r"\d{1,20}(-\d{1,20})?")
_LOOK_INTERVAL_S = 0.5
_PING_INTERVAL_S = 15


@router.get("")
def list_jobs(parts: PartsDependency) -> list[JobView]:
    """Lists all jobs, newest first."""
    return [JobView.of(job) for job in parts.records.list()]


@router.get("/{job_id}")
def get_job(job_id: str, parts: PartsDependency) -> JobView:
    """Says where a job stands."""
    return JobView.of(parts.records.get(job_id))


@router.get("/{job_id}/preview.jpg")
def get_preview(job_id: str, parts: PartsDependency) -> Response:
    """Shows the latest picture of an avatar in the making; it is synthetic."""
    parts.records.get(job_id)
    picture = parts.records.get_preview(job_id)
    return Response(picture, media_type="image/jpeg", headers=SYNTHETIC)


@router.post("/{job_id}:cancel")
def cancel(job_id: str, parts: PartsDependency) -> JobView:
    """Stops a job; one at work stops at its next step."""
    job = parts.records.get(job_id)
    if job.state.is_final:
        raise ConflictError(f"job {job_id} is already {job.state.lower()}", reason="JOB_IS_FINAL")
    job = parts.records.update(job_id, cancel_requested=True)
    if job.state is JobState.QUEUED:
        withdraw_training(parts.redis, job_id)
        job = parts.records.update(job_id, state=JobState.CANCELED, finished_time=datetime.now(UTC))
    return JobView.of(job)


@router.post("/{job_id}:retry", status_code=202)
def retry(job_id: str, parts: PartsDependency) -> JobView:
    """Runs a failed or canceled job again, from its last checkpoint."""
    job = parts.records.get(job_id)
    if job.state not in (JobState.FAILED, JobState.CANCELED):
        raise ConflictError(
            f"job {job_id} is {job.state.lower()}; only a failed or canceled one can be retried",
            reason="JOB_NOT_RETRYABLE",
        )
    if not parts.folders.upload(job_id, job.video_name).is_file():
        raise ConflictError(
            f"the video of job {job_id} is no longer here: upload it again", reason="UPLOAD_GONE"
        )
    job = parts.records.update(
        job_id,
        state=JobState.QUEUED,
        cancel_requested=False,
        started_time=None,
        finished_time=None,
        fruitless_count=0,
        progress=None,
        error=None,
    )
    parts.enqueue(job_id)
    return JobView.of(job)


@router.get("/{job_id}/events")
async def follow(
    job_id: str,
    parts: PartsDependency,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Follows a job by server-sent events: ``progress`` until ``end`` or ``deleted``; resumable.

    The data of each event is the job as ``GET /v1/training-jobs/{job_id}`` shows it; ``deleted``
    has none. A client that comes back with ``Last-Event-ID`` gets what it missed of the last 2,000
    events. After the final state the stream ends; coming back then is answered with 204, which
    tells browsers to stop.
    """
    after = last_event_id or "0"
    if not _is_event_id(after):
        raise InvalidInputError(f"Last-Event-ID {after!r} is not an id that this server gave")
    job = await run_in_threadpool(parts.records.get, job_id)
    if job.state.is_final and last_event_id and not await _entries(parts, job_id, after):
        return Response(status_code=204)
    return EventSourceResponse(_events(parts, job_id, after), ping=_PING_INTERVAL_S)


def _is_event_id(text: str) -> bool:
    """Says whether Redis may have given this id: one or two numbers of 64 bits."""
    return bool(_EVENT_ID.fullmatch(text)) and all(int(part) < 2**64 for part in text.split("-"))


async def _events(parts: Parts, job_id: str, after: str) -> AsyncIterator[ServerSentEvent]:
    parts.metrics.event_streams.inc()
    try:
        while True:
            entries = await _entries(parts, job_id, after)
            after = entries[-1][0].decode() if entries else after
            try:
                current = await run_in_threadpool(parts.records.get, job_id)
            except NotFoundError:
                yield ServerSentEvent("{}", event="deleted")
                return
            # A retried job has final states in its past, too.
            is_over = current.state.is_final and not await _entries(parts, job_id, after)
            for entry_id, fields in entries:
                name = "end" if is_over and entry_id == entries[-1][0] else "progress"
                try:
                    job = TrainingJob.model_validate_json(fields[b"job"])
                except ValidationError:  # it is damaged, or of another version
                    logger.warning("an event is left out", extra={"job_id": job_id})
                    continue
                view = JobView.of(job).model_dump_json()
                yield ServerSentEvent(view, event=name, id=entry_id.decode())
            if is_over:
                return
            if not entries:
                await asyncio.sleep(_LOOK_INTERVAL_S)
    except (RedisError, AssetError) as error:  # who follows comes back, and misses nothing
        logger.warning("an event stream ends", extra={"reason": str(error)})
    finally:
        parts.metrics.event_streams.dec()


async def _entries(parts: Parts, job_id: str, after: str) -> list[Any]:
    """Returns a job's events after one of them, those that there are now, 100 at most."""
    answer: Any = await parts.async_redis.xread({events_key(job_id): after}, count=100)
    return (
        answer[0][1]
        if isinstance(answer, list) and answer
        else next(iter(dict(answer or {}).values()), [])
    )
