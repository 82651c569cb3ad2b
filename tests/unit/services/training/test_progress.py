# SPDX-License-Identifier: Apache-2.0
"""How a core's progress becomes that of a job."""

from __future__ import annotations

import pytest

from services.common.jobs import JobProgress, JobState
from styleavatar_core.types import Progress

STAGES = ("tracking", "rendering", "training", "export")


def test_the_overall_fraction_grows_through_all_stages() -> None:
    events = [Progress(stage, fraction) for stage in STAGES for fraction in (0.0, 0.5, 1.0)]
    overall = [JobProgress.from_core(event).overall_fraction for event in events]
    assert overall == sorted(overall)
    assert (overall[0], overall[-1]) == (0.0, 1.0)


def test_fields_travel_and_the_picture_does_not() -> None:
    progress = Progress("training", 0.5, "step 7", 7, 12.0, {"l1": 0.25}, 30.5, b"picture")
    shown = JobProgress.from_core(progress).model_dump()
    expected = {"message": "step 7", "step": 7, "eta_s": 12.0, "losses": {"l1": 0.25}}
    assert (expected | {"psnr_db": 30.5}).items() <= shown.items()
    assert "preview_jpeg" not in shown


def test_time_left_is_never_negative() -> None:
    assert JobProgress.from_core(Progress("training", 1.0, eta_s=-3.0)).eta_s == 0.0


@pytest.mark.parametrize("state", JobState)
def test_final_states(state: JobState) -> None:
    assert state.is_final == (state not in ("QUEUED", "RUNNING"))
