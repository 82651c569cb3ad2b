# SPDX-License-Identifier: Apache-2.0
"""``/v1/avatars``: upload a video, look at avatars, fetch them, delete them."""

from __future__ import annotations

import logging
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response
from pydantic import ValidationError

from services.common.job_queue import withdraw_training
from services.common.jobs import JobState, TrainingJob
from services.common.storage import MANIFEST_NAME
from services.gateway.bundle_response import BundleResponse
from services.gateway.dependencies import Parts, PartsDependency
from services.gateway.description import UPLOAD_FORM
from services.gateway.intake import take_upload
from services.gateway.schemas import Accepted, AvatarState, AvatarView
from styleavatar_core.avatar.manifest import AvatarManifest
from styleavatar_core.errors import AssetError, NotFoundError, StyleAvatarError

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/v1/avatars", tags=["avatars"])

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
    try:
        job = await take_upload(request, parts)
    except StyleAvatarError as error:
        parts.metrics.refused_uploads.labels(error.reason).inc()
        raise
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
    # By timestamp: a bundle of another program may say no time zone.
    return sorted(views, key=lambda view: view.created_time.timestamp(), reverse=True)


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
    parts.store.delete(avatar_id)  # before the files, which take longer: nobody sees it any more
    if job_id is not None:
        parts.folders.delete(job_id)
    if job is not None and job.state is JobState.QUEUED:
        withdraw_training(parts.redis, job.job_id)
    logger.info("avatar and its sources deleted", extra={"avatar_id": avatar_id})
    return Response(status_code=204)


@router.get("/{avatar_id}/bundle", response_class=BundleResponse, status_code=200)
def get_bundle(avatar_id: str, parts: PartsDependency) -> BundleResponse:
    """Fetches a ready avatar as one zip file."""
    path = _ready_path(parts, avatar_id)
    return BundleResponse(parts.store, path, SYNTHETIC, parts.download_places)


@router.get("/{avatar_id}/preview.jpg", response_class=FileResponse)
def get_preview(avatar_id: str, parts: PartsDependency) -> FileResponse:
    """Shows a ready avatar; the picture is synthetic, as its header says."""
    path = _ready_path(parts, avatar_id) / "preview.jpg"
    if not path.is_file():
        raise NotFoundError(f"avatar {avatar_id} has no preview", reason="PREVIEW_NOT_FOUND")
    return FileResponse(path, media_type="image/jpeg", headers=SYNTHETIC)


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
        parts.store.path(avatar_id)  # what was deleted meanwhile is not found
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
