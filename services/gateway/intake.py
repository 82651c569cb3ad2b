# SPDX-License-Identifier: Apache-2.0
"""From a request with a video to a job in the queue; what is refused leaves nothing behind."""

from __future__ import annotations

import asyncio
import logging
import math
import shutil
from datetime import UTC, datetime
from pathlib import Path

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from services.common.jobs import TrainingJob
from services.common.storage import new_id
from services.gateway.dependencies import Parts
from services.gateway.schemas import DEFAULT_MINUTES
from services.gateway.upload import FORM_BYTES_LIMIT, UploadReader, broken_off, too_large
from styleavatar_core.data.video import probe_for_training
from styleavatar_core.errors import ConflictError, InvalidInputError
from styleavatar_core.provenance.consent import make_consent

logger = logging.getLogger(__name__)

# Fields of an upload's form beside the video.
TEXT_FIELDS = ("consent", "consent_subject", "consent_given_by", "source", "preset", "minutes")


async def take_upload(request: Request, parts: Parts) -> TrainingJob:
    """Writes an upload to disk, checks it and queues its job.

    Raises:
        InvalidInputError: It cannot be used.
        OverloadedError: As many as may be under way are.
        ConflictError: It cannot be kept.
    """
    with parts.upload_places.one():
        try:
            return await _keep(request, parts)
        except OSError as error:
            logger.error("an upload cannot be written", extra={"reason": str(error)})
            raise ConflictError(
                f"this server cannot keep the video now: {error.strerror}; whoever runs it must see"
                " to its disk, then send the video again",
                reason="NOT_WRITTEN",
            ) from error


async def _keep(request: Request, parts: Parts) -> TrainingJob:
    """Writes an upload to disk, checks it and queues its job."""
    folder = await run_in_threadpool(parts.folders.new_upload_folder)
    try:
        reader = await _receive(request, parts, folder)
        return await run_in_threadpool(_accept, parts, reader, folder)
    finally:
        await run_in_threadpool(shutil.rmtree, folder, ignore_errors=True)


async def _receive(request: Request, parts: Parts, folder: Path) -> UploadReader:
    """Writes the request's video into a folder and returns its fields."""
    limit = parts.settings.upload_limit_mb * 1_000_000
    if int(request.headers.get("content-length") or 0) > limit + FORM_BYTES_LIMIT:
        raise too_large(limit)
    content_type = request.headers.get("content-type", "")
    reader = UploadReader(
        content_type, folder, file_field="video", text_fields=TEXT_FIELDS, limit=limit
    )
    idle_s = parts.settings.upload_idle_timeout_s
    try:
        async with asyncio.timeout(idle_s) as patience:  # else who sends nothing keeps his place
            async for piece in request.stream():
                patience.reschedule(None)
                # A disk that is slow keeps nobody else waiting.
                await run_in_threadpool(reader.feed, piece)
                parts.metrics.upload_bytes.inc(len(piece))
                patience.reschedule(asyncio.get_running_loop().time() + idle_s)
        await run_in_threadpool(reader.finish)
    except ClientDisconnect as error:
        raise broken_off() from error
    except TimeoutError as error:
        raise InvalidInputError(
            f"nothing more of the upload came for {idle_s:g} s; send it again",
            reason="UPLOAD_INCOMPLETE",
        ) from error
    finally:
        await run_in_threadpool(reader.close)
    return reader


def _accept(parts: Parts, reader: UploadReader, folder: Path) -> TrainingJob:
    """Checks an upload and queues its job."""
    fields = reader.fields
    consent = make_consent(
        fields.get("consent"),
        subject=fields.get("consent_subject"),
        given_by=fields.get("consent_given_by"),
        source_description=fields.get("source", ""),
    )
    preset = fields.get("preset") or "lite"
    if preset not in DEFAULT_MINUTES:
        raise InvalidInputError(f"preset {preset!r} is not one of {', '.join(DEFAULT_MINUTES)}")
    minutes = _minutes(fields.get("minutes"), preset, parts.settings.minutes_limit)
    if reader.file_path is None or reader.byte_count == 0:
        raise InvalidInputError(
            "there is no video in the form: send it as the field 'video'", reason="VIDEO_MISSING"
        )
    probe_for_training(reader.file_path)
    job = TrainingJob(
        job_id=new_id("job"),
        avatar_id=new_id("avatar"),
        preset=preset,
        minutes=minutes,
        consent=consent,
        video_name=reader.file_name,
        created_time=datetime.now(UTC),
    )
    parts.records.create(job)
    try:
        parts.folders.accept_upload(folder, job.job_id)
    except OSError:
        parts.records.delete(job.job_id)
        raise
    parts.enqueue(job.job_id)
    logger.info("upload accepted", extra={"job_id": job.job_id, "bytes": reader.byte_count})
    return job


def _minutes(text: str | None, preset: str, limit: float) -> float:
    """Reads the training time asked for."""
    if not text:
        return min(DEFAULT_MINUTES[preset], limit)
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 < minutes <= limit:
        raise InvalidInputError(
            f"minutes must be a number above 0 and up to {limit:g}, not {text!r}"
        )
    return minutes
