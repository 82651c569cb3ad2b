# SPDX-License-Identifier: Apache-2.0
"""What is known of a training job: its request, its state, its progress and its error.

``job_records`` keeps it in Redis, where a person sees it; who runs the job is up to ``job_queue``.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from styleavatar_core.provenance.consent import ConsentRecord
from styleavatar_core.types import Progress

# Share of the whole job at which a stage starts, and how much of the job it is.
_STAGES = {
    "tracking": (0.0, 0.10),
    "rendering": (0.10, 0.10),
    "training": (0.20, 0.75),
    "export": (0.95, 0.05),
}


class JobState(StrEnum):
    """Where a training job stands."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens to the job by itself."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED)


class JobProgress(BaseModel):
    """How far the job has come, as last reported; see ``styleavatar_core.types.Progress``."""

    model_config = ConfigDict(frozen=True)

    stage: str
    fraction: float = Field(description="Share of this stage that is done, in [0, 1].")
    message: str = ""
    step: int | None = None
    eta_s: float | None = None
    losses: dict[str, float] = Field(default_factory=dict)
    psnr_db: float | None = None
    overall_fraction: float = Field(default=0.0, description="Share of the whole job, in [0, 1].")

    @classmethod
    def from_core(cls, progress: Progress) -> JobProgress:
        """Takes over a progress event of the core, without its picture."""
        start, width = _STAGES.get(progress.stage, (0.0, 0.0))
        values = {field: getattr(progress, field) for field in _CORE_FIELDS}
        if progress.eta_s is not None:
            values["eta_s"] = max(0.0, progress.eta_s)
        return cls(**values, overall_fraction=round(start + width * progress.fraction, 6))


_CORE_FIELDS = tuple(name for name in JobProgress.model_fields if name != "overall_fraction")


class JobError(BaseModel):
    """Why a job failed: a word for programs, a sentence for people."""

    model_config = ConfigDict(frozen=True)

    reason: str
    message: str


class TrainingJob(BaseModel):
    """One request to make an avatar, from upload to bundle."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    avatar_id: str
    state: JobState = JobState.QUEUED
    preset: str
    minutes: float = Field(description="Training time asked for, without tracking and export.")
    consent: ConsentRecord
    video_name: str = Field(
        default="", description="Cleaned name of the uploaded file, in the job's folder too."
    )
    created_time: datetime
    started_time: datetime | None = None
    finished_time: datetime | None = None
    attempt: int = Field(default=0, description="Number of the latest run; fences older ones.")
    resume_count: int = Field(default=0, description="How often work went on after a break.")
    fruitless_count: int = Field(
        default=0, description="Breaks in a row with no progress between them."
    )
    furthest_fraction: float = Field(
        default=0.0, description="Highest overall fraction that any attempt reached."
    )
    cancel_requested: bool = False
    progress: JobProgress | None = None
    has_preview: bool = False
    error: JobError | None = None
