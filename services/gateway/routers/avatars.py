# SPDX-License-Identifier: Apache-2.0
"""``/v1/avatars``: upload a video, look at avatars, fetch them, delete them."""

from __future__ import annotations

import logging
import math
import shutil
from datetime import UTC, datetime
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, Response
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from services.common.job_queue import enqueue_training, withdraw_training
from services.common.jobs import JobState, TrainingJob
from services.common.storage import MANIFEST_NAME, new_id
from services.gateway.bundle_response import BundleResponse
from services.gateway.dependencies import Parts, PartsDependency
from services.gateway.description import UPLOAD_FORM
from services.gateway.schemas import DEFAULT_MINUTES, Accepted, AvatarState, AvatarView
from services.gateway.upload import FORM_BYTES_LIMIT, UploadReader, broken_off, too_large
from styleavatar_core.avatar.manifest import AvatarManifest
from styleavatar_core.data.video import probe_for_training
from styleavatar_core.errors import AssetError, InvalidInputError, NotFoundError, StyleAvatarError
from styleavatar_core.provenance.consent import make_consent

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/v1/avatars", tags=["avatars"])

# Fields of an upload's form beside the video.
TEXT_FIELDS = ("consent", "consent_subject", "consent_given_by", "source", "preset", "minutes")
SYNTHETIC = {"X-Synthetic": "true"}

_STATES = {
    JobState.QUEUED: AvatarState.TRAINING,
    JobState.RUNNING: AvatarState.TRAINING,
    JobState.SUCCEEDED: AvatarState.READY,
    JobState.FAILED: AvatarState.FAILED,
    JobState.CANCELED: AvatarState.CANCELED,
}


@router.post("", status_code=202, response_model=Accepted, openapi_extra=UPLOAD_FORM)
async def create(request: Request, parts: PartsDependency) -> Accepted:
    """Takes a portrait video and the consent of the person in it; trains an avatar.

    A multipart form with the fields ``video`` (file), ``consent`` (the statement), and, if you
    like, ``consent_subject``, ``consent_given_by``, ``source``, ``preset`` (nano, lite, hd,
    paper, paper+) and ``minutes`` of training.
    """
    folder = await run_in_threadpool(parts.folders.new_upload_folder)
    try:
        reader = await _receive(request, parts, folder)
        job = await run_in_threadpool(_accept, parts, reader, folder)
    except StyleAvatarError as error:
        parts.metrics.refused_uploads.labels(error.reason).inc()
        raise
    finally:
        await run_in_threadpool(shutil.rmtree, folder, ignore_errors=True)
    avatar, path = f"/v1/avatars/{job.avatar_id}", f"/v1/training-jobs/{job.job_id}"
    return Accepted(
        avatar_id=job.avatar_id,
        job_id=job.job_id,
        links={"avatar": avatar, "job": path, "events": f"{path}/events"},
    )


@router.get("")
def list_avatars(parts: PartsDependency) -> list[AvatarView]:
    """Lists avatars, ready or in the making, newest first."""
    jobs = {job.avatar_id: job for job in parts.records.list()}
    views = []
    for avatar_id in parts.store.list():
        try:
            views.append(_ready_view(parts, avatar_id, jobs.pop(avatar_id, None)))
        except NotFoundError:
            logger.debug("deleted while avatars were listed", extra={"avatar_id": avatar_id})
        except AssetError as error:
            logger.warning("avatar left out of the list", extra={"cause": str(error)})
    views += [_view_of_job(job) for job in jobs.values()]
    return sorted(views, key=lambda view: view.created_time, reverse=True)


@router.get("/{avatar_id}")
def get_avatar(avatar_id: str, parts: PartsDependency) -> AvatarView:
    """Says how far an avatar is and, when it is ready, how good it is."""
    job = parts.records.find_by_avatar(avatar_id)
    if job is not None and not parts.store.exists(avatar_id):
        return _view_of_job(job)
    return _ready_view(parts, avatar_id, job)


@router.delete("/{avatar_id}", status_code=204)
def delete_avatar(avatar_id: str, parts: PartsDependency) -> Response:
    """Deletes the avatar, the uploaded video and everything that was made of it.

    May be repeated: what an earlier try has left goes then.
    """
    job = parts.records.find_by_avatar(avatar_id)
    job_id = job.job_id if job else parts.records.find_deleted(avatar_id)
    if job_id is None:
        parts.store.path(avatar_id)
    else:
        # Without its record a running job stops at its next step and cleans up behind itself.
        parts.records.delete(job_id)
        parts.folders.delete(job_id)
    parts.store.delete(avatar_id)
    if job is not None and job.state is JobState.QUEUED:
        withdraw_training(parts.redis, job.job_id)
    logger.info("avatar and its sources deleted", extra={"avatar_id": avatar_id})
    return Response(status_code=204)


@router.get("/{avatar_id}/bundle", response_class=BundleResponse, status_code=200)
def get_bundle(avatar_id: str, parts: PartsDependency) -> BundleResponse:
    """Fetches a ready avatar as one zip file."""
    return BundleResponse(parts.store, _ready_path(parts, avatar_id), SYNTHETIC)


@router.get("/{avatar_id}/preview.jpg", response_class=FileResponse)
def get_preview(avatar_id: str, parts: PartsDependency) -> FileResponse:
    """Shows a ready avatar; the picture is synthetic, as its header says."""
    path = _ready_path(parts, avatar_id) / "preview.jpg"
    if not path.is_file():
        raise NotFoundError(f"avatar {avatar_id} has no preview", reason="PREVIEW_NOT_FOUND")
    return FileResponse(path, media_type="image/jpeg", headers=SYNTHETIC)


async def _receive(request: Request, parts: Parts, folder: Path) -> UploadReader:
    """Writes the request's video into a folder and returns its fields."""
    limit = parts.settings.upload_limit_mb * 1_000_000
    if int(request.headers.get("content-length") or 0) > limit + FORM_BYTES_LIMIT:
        raise too_large(limit)
    content_type = request.headers.get("content-type", "")
    reader = UploadReader(
        content_type, folder, file_field="video", text_fields=TEXT_FIELDS, limit=limit
    )
    try:
        async for piece in request.stream():
            reader.feed(piece)
            parts.metrics.upload_bytes.inc(len(piece))
        reader.finish()
    except ClientDisconnect as error:
        raise broken_off() from error
    finally:
        reader.close()
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
    enqueue_training(parts.redis, job.job_id)
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


def _ready_path(parts: Parts, avatar_id: str) -> Path:
    job = None if parts.store.exists(avatar_id) else parts.records.find_by_avatar(avatar_id)
    if job is not None:
        raise NotFoundError(
            f"avatar {avatar_id} is not ready: its job {job.job_id} is {job.state.lower()}",
            reason="AVATAR_NOT_READY",
        )
    return parts.store.path(avatar_id)


def _view_of_job(job: TrainingJob) -> AvatarView:
    return AvatarView(
        avatar_id=job.avatar_id,
        state=_STATES[job.state],
        preset=job.preset,
        created_time=job.created_time,
        consent=job.consent,
        job_id=job.job_id,
        links=_links(job.avatar_id, job, is_ready=False),
    )


def _ready_view(parts: Parts, avatar_id: str, job: TrainingJob | None) -> AvatarView:
    path = parts.store.path(avatar_id) / MANIFEST_NAME
    try:
        manifest = AvatarManifest.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise AssetError(f"the bundle of {avatar_id} is damaged: delete the avatar") from error
    return AvatarView(
        avatar_id=avatar_id,
        state=AvatarState.READY,
        preset=manifest.preset,
        created_time=job.created_time if job else manifest.created_time,
        image_size_px=manifest.image_size_px,
        metrics=manifest.metrics,
        consent=manifest.consent,
        job_id=job.job_id if job else None,
        links=_links(avatar_id, job, is_ready=True),
    )


def _links(avatar_id: str, job: TrainingJob | None, *, is_ready: bool) -> dict[str, str]:
    path = f"/v1/avatars/{avatar_id}"
    links = {"self": path}
    if is_ready:
        links |= {"bundle": f"{path}/bundle", "preview": f"{path}/preview.jpg"}
    if job is not None:
        links["job"] = f"/v1/training-jobs/{job.job_id}"
    return links
