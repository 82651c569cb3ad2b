# SPDX-License-Identifier: Apache-2.0
"""What tests of jobs share: a clip to upload, Redis with a gateway, and Redis alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.common.job_records import JobRecords
from tests.integration.job_system import JobSystem, serving, write_clip


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds of video, which a gateway accepts."""
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=6)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobSystem]:
    """Redis and a gateway."""
    with serving(tmp_path_factory.mktemp("data")) as system:
        yield system


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[JobSystem]:
    """A Redis without gateway and trainer."""
    system = JobSystem(tmp_path)
    try:
        system.start_redis()
        yield system
    finally:
        system.stop()


@pytest.fixture
def records(alone: JobSystem) -> JobRecords:
    """Job records in that Redis."""
    return alone.records
