# SPDX-License-Identifier: Apache-2.0
"""What the REST interface answers with."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, Field

from services.common.jobs import JobError, JobProgress, JobState, TrainingJob
from styleavatar_core.provenance.consent import ConsentRecord

# How long each preset is trained if nobody says.
DEFAULT_MINUTES = {"nano": 5.0, "lite": 25.0, "hd": 240.0, "paper": 720.0, "paper+": 720.0}


class AvatarState(StrEnum):
    """Whether an avatar can be driven."""

    TRAINING = "TRAINING"
    READY = "READY"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


class JobView(BaseModel):
    """A training job as its owner sees it."""

    job_id: str
    avatar_id: str
    state: JobState
    preset: str
    minutes: float = Field(description="Training time asked for.")
    video_name: str
    created_time: datetime
    started_time: datetime | None
    finished_time: datetime | None
    resume_count: int = Field(description="How often work went on after an interruption.")
    cancel_requested: bool
    progress: JobProgress | None
    error: JobError | None
    links: dict[str, str]

    @classmethod
    def of(cls, job: TrainingJob) -> JobView:
        """Returns what is shown of a job."""
        path = f"/v1/training-jobs/{job.job_id}"
        links = {"self": path, "events": f"{path}/events", "avatar": f"/v1/avatars/{job.avatar_id}"}
        if job.has_preview:
            links["preview"] = f"{path}/preview.jpg"
        fields = {name: getattr(job, name) for name in cls.model_fields if name != "links"}
        return cls(**fields, links=links)


class AvatarView(BaseModel):
    """An avatar, ready or in the making."""

    avatar_id: str
    state: AvatarState
    preset: str
    created_time: datetime
    image_size_px: int | None = Field(default=None, description="Known when the avatar is ready.")
    metrics: dict[str, float] = Field(
        default_factory=dict, description="Figures on held-out frames of the video."
    )
    consent: ConsentRecord
    job_id: str | None = None
    is_synthetic: bool = Field(default=True, description="Every picture of an avatar is.")
    links: dict[str, str]


class Accepted(BaseModel):
    """Answer to an upload: the job is queued."""

    avatar_id: str
    job_id: str
    links: dict[str, str]


class ProcessView(BaseModel):
    """One part of the system and whether it works."""

    name: str
    address: str
    is_healthy: bool
    detail: str = ""
