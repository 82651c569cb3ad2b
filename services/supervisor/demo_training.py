# SPDX-License-Identifier: Apache-2.0
"""The training of the demo's avatar, asked of the gateway and followed to its end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from styleavatar_client.rest import GatewayClient

from services.supervisor.demo_input import DemoInput
from services.supervisor.demo_progress import StageBars, note_of
from services.supervisor.demo_report import CurvePoint
from styleavatar_core.errors import TrainingError


@dataclass(slots=True)
class TrainingRecord:
    """What was heard of the training.

    Attributes:
        avatar_id: The avatar.
        metrics: Figures on the held-out fifth, by the services.
        points: The training curve.
        train_minutes: From the first to the last event of the training stage.
    """

    avatar_id: str
    metrics: dict[str, float] = field(default_factory=dict)
    points: list[CurvePoint] = field(default_factory=list)
    train_minutes: float = 0.0


def train_demo(
    gateway_url: str, given: DemoInput, options: dict[str, Any], bars: StageBars
) -> TrainingRecord:
    """Uploads the video and follows its job to the end.

    Args:
        gateway_url: Of the gateway.
        given: The video and what is said about it.
        options: ``preset`` and ``minutes``.
        bars: Where progress is shown.

    Raises:
        TrainingError: The job did not succeed.
    """
    with GatewayClient(gateway_url) as client:
        accepted = client.create_avatar(
            given.video,
            given.statement,
            subject=given.subject,
            given_by=given.given_by,
            source=given.source,
            **options,
        )
        record = TrainingRecord(accepted["avatar_id"])
        began_s: float | None = None
        job: dict[str, Any] = {}
        for job in client.follow_job(accepted["job_id"]):
            progress = job.get("progress") or {}
            if not progress:
                continue
            losses, psnr_db = progress.get("losses") or {}, progress.get("psnr_db")
            note = note_of(progress.get("eta_s"), losses, psnr_db) or progress.get("message", "")
            bars.update(progress["stage"], progress["fraction"], note)
            if progress["stage"] == "training":
                began_s = began_s or time.monotonic()
                record.train_minutes = (time.monotonic() - began_s) / 60
                record.points.append(CurvePoint(record.train_minutes, losses, psnr_db))
        if job.get("state") != "SUCCEEDED":
            error = job.get("error") or {}
            raise TrainingError(error.get("message") or f"the job ended {job.get('state')}")
        record.metrics = client.get_avatar(record.avatar_id)["metrics"]
    return record
