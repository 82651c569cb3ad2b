# SPDX-License-Identifier: Apache-2.0
"""What a running job tells Redis, and what it hears from there: cancel, or that it is replaced."""

from __future__ import annotations

import logging
import threading
import time

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from services.common.job_records import JobRecords, StaleAttemptError
from services.common.jobs import JobProgress, TrainingJob
from styleavatar_core.errors import AssetError, NotFoundError
from styleavatar_core.types import Progress

logger = logging.getLogger(__name__)

_REPORT_INTERVAL_S = 0.5
_LOOK_INTERVAL_S = 1.0
# Each word to a Redis that is away holds the training up.
_AWAY_INTERVAL_S = 5.0


class JobReporter:
    """Connects one attempt of a job to its record: ``on_progress`` and ``should_stop``.

    Redis being away for a while, taking no writes, or having a record that cannot be read must not
    end hours of work: what cannot be written is left out, and a Redis that does not answer is left
    alone for a while.

    Attributes:
        is_abandoned: The record belongs to a newer attempt, or was deleted.
        is_canceled: A person asked for the job to stop.
    """

    def __init__(self, records: JobRecords, job: TrainingJob, interrupted: threading.Event) -> None:
        """Starts to report for a job.

        Args:
            records: The job records, over a connection that gives up soon: training waits for it.
            job: The job as returned by ``begin_attempt``.
            interrupted: Set when this process is told to end, as by SIGTERM.
        """
        self.is_abandoned = False
        self.is_canceled = job.cancel_requested
        self._records = records
        self._job = job
        self._interrupted = interrupted
        self._last_stage = ""
        self._next_report_time = 0.0
        self._next_look_time = 0.0
        self._away_until_time = 0.0

    @property
    def is_interrupted(self) -> bool:
        """Whether this process was told to end."""
        return self._interrupted.is_set()

    def on_progress(self, progress: Progress) -> None:
        """Writes progress to the record, at most twice a second unless the stage changes."""
        now = time.monotonic()
        is_news = progress.stage != self._last_stage or progress.fraction >= 1.0
        has_picture = progress.preview_jpeg is not None
        is_due = is_news or has_picture or now >= self._next_report_time
        if self.is_abandoned or now < self._away_until_time or not is_due:
            return
        self._last_stage = progress.stage
        self._next_report_time = now + _REPORT_INTERVAL_S
        try:
            self._write(progress)
        except (StaleAttemptError, NotFoundError):
            self.is_abandoned = True
        except (RedisError, AssetError) as error:
            self._note_failure("progress not reported", error)

    def should_stop(self) -> bool:
        """Says whether to stop: told to end, canceled, or replaced; asks Redis once a second."""
        now = time.monotonic()
        if now >= max(self._next_look_time, self._away_until_time):
            self._next_look_time = now + _LOOK_INTERVAL_S
            self._look()
        return self.is_abandoned or self.is_canceled or self.is_interrupted

    def is_replaced(self) -> bool:
        """Asks Redis now whether the job is another's, or gone."""
        self._look()
        return self.is_abandoned

    def _look(self) -> None:
        try:
            job = self._records.get(self._job.job_id)
        except NotFoundError:
            self.is_abandoned = True
        except (RedisError, AssetError) as error:
            self._note_failure("cannot ask for cancellation", error)
        else:
            self.is_abandoned = job.attempt != self._job.attempt
            self.is_canceled = job.cancel_requested

    def _note_failure(self, message: str, error: RedisError | AssetError) -> None:
        logger.warning(message, extra={"error": str(error)})
        if isinstance(error, (RedisConnectionError, RedisTimeoutError)):
            self._away_until_time = time.monotonic() + _AWAY_INTERVAL_S

    def _write(self, progress: Progress) -> None:
        reached = JobProgress.from_core(progress)
        changes: dict[str, object] = {"progress": reached}
        if reached.overall_fraction > self._job.furthest_fraction:
            changes |= {"furthest_fraction": reached.overall_fraction, "fruitless_count": 0}
        self._job = self._records.update(
            self._job.job_id,
            fence=self._job.attempt,
            preview_jpeg=progress.preview_jpeg,
            **changes,
        )
