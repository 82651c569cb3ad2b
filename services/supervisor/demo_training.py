# SPDX-License-Identifier: Apache-2.0
"""The training of the demo's avatar, asked of the gateway and followed to its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from styleavatar_client.rest import GatewayClient

from services.supervisor.demo_input import DemoInput
from services.supervisor.demo_report import CurvePoint
from styleavatar_core.errors import TrainingError
from styleavatar_core.types import Progress


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
    gateway_url: str,
    given: DemoInput,
    options: dict[str, Any],
    on_progress: Callable[[Progress], None],
) -> TrainingRecord:
    """Uploads the video and follows its job to the end.

    Args:
        gateway_url: Of the gateway.
        given: The video and what is said about it.
        options: ``preset`` and ``minutes``.
        on_progress: Told how far it has come.

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
            if job["progress"] is None:
                continue
            told = job["progress"]
            progress = Progress(**{name: told[name] for name in told if name != "overall_fraction"})
            on_progress(progress)
            if progress.stage == "training":
                began_s = began_s or time.monotonic()
                record.train_minutes = (time.monotonic() - began_s) / 60
                record.points.append(
                    CurvePoint(record.train_minutes, progress.losses, progress.psnr_db)
                )
        if job.get("state") != "SUCCEEDED":
            error = job.get("error") or {}
            raise TrainingError(error.get("message") or f"the job ended {job.get('state')}")
        record.metrics = client.get_avatar(record.avatar_id)["metrics"]
    return record
