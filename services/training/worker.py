# SPDX-License-Identifier: Apache-2.0
"""An rq worker for jobs that take hours: a spawned process per job that never outlives it.

What differs from rq's own SpawnWorker, and why:

* the job's process dies with its worker (rq leaves it running as an orphan, so that two copies
  would train the same avatar);
* SIGTERM stops the job at its next step and puts it back (rq waits for its end);
* Redis being away does not end worker and job;
* the lease of a job is short, so that another trainer takes over soon;
* a worker that ends while it looks for abandoned jobs keeps the others from it for seconds only
  (rq's lock outlives its holder by a quarter of an hour);
* an idle worker looks for abandoned jobs every few seconds;
* a job that rq has lost is put back;
* a job that was canceled or deleted and does not stop is killed;
* between jobs it also removes files that nobody needs, every hour.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError
from rq.executions import Execution
from rq.job import Job
from rq.queue import Queue
from rq.worker import SpawnWorker

from services.common.job_queue import forget_executions
from services.common.job_records import JobRecords
from services.common.processes import die_with_parent
from services.training.recovery import find_lost_jobs, requeue
from styleavatar_core.errors import AssetError, NotFoundError

logger = logging.getLogger(__name__)

# Well below ``ANSWER_LIMIT_S``: a client that gives up just when the wait ends asks again, and the
# worker does not get to look for abandoned jobs.
WAIT_FOR_WORK_S = 2
_REAP_LIMIT_S = 20.0
# Looking for abandoned jobs takes milliseconds: a lock this old has no living holder.
_CLEANING_LIMIT_S = 10
_REMOVAL_INTERVAL_S = 3600


class TrainingWorker(SpawnWorker):
    """Runs training jobs one after another.

    Attributes:
        lease_s: Seconds after the last sign of life until a job counts as abandoned.
        stop_limit_s: Seconds that a job that was canceled or deleted may take to stop.
        records: The job records; a job's own process has none.
        remove_leftovers: Removes files that nobody needs; a job's own process does not.
    """

    lease_s: int = 20
    stop_limit_s: int = 60
    records: JobRecords | None = None
    remove_leftovers: Callable[[], None] | None = None
    _lost: frozenset[str] = frozenset()
    _unwanted_since_time: float | None = None
    _removed_time = time.monotonic()

    @property
    def dequeue_timeout(self) -> int:
        """Returns for how many seconds to wait for work before looking after abandoned jobs."""
        return WAIT_FOR_WORK_S

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """Runs in the job's own process."""
        if not die_with_parent(self.pid):
            os._exit(1)  # the worker is already gone; whoever replaces it runs the job
        super().main_work_horse(job, queue)

    def setup_work_horse_signals(self) -> None:
        """Lets SIGTERM ask the job to stop, instead of killing it."""
        from services.training import tasks

        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: tasks.interrupted.set())

    def handle_warm_shutdown_request(self) -> None:
        """Passes SIGTERM on to the job, which stops at its next step; kills it if it does not."""
        horse_pid = self.horse_pid
        if horse_pid:
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(horse_pid, signal.SIGTERM)
            reaper = threading.Timer(_REAP_LIMIT_S, self.kill_horse)
            reaper.daemon = True
            reaper.start()

    def prepare_execution(self, job: Job) -> Execution:
        """Begins an execution; what is left of an earlier one must not hinder its end."""
        forget_executions(job)
        self._unwanted_since_time = None
        return super().prepare_execution(job)

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """Returns the seconds until a job without a sign of life counts as abandoned."""
        return self.lease_s

    def clean_registries(self) -> None:
        """Looks for abandoned jobs, unless another worker is just doing it, and for lost ones."""
        for queue in self.queues:
            key = queue.registry_cleaning_key
            if queue.connection.ttl(key) > _CLEANING_LIMIT_S:
                queue.connection.expire(key, _CLEANING_LIMIT_S)
        super().clean_registries()
        if self.records is not None:
            self._put_back_lost_jobs(self.queues[0], self.records)
        if self.remove_leftovers is not None and self._is_hour_over():
            try:
                self.remove_leftovers()
            except OSError as error:
                logger.error("leftovers cannot be removed", extra={"reason": str(error)})

    def _is_hour_over(self) -> bool:
        now = time.monotonic()
        is_over = now - self._removed_time > _REMOVAL_INTERVAL_S
        if is_over:
            self._removed_time = now
        return is_over

    def _put_back_lost_jobs(self, queue: Queue, records: JobRecords) -> None:
        lost = find_lost_jobs(queue, records)
        requeue(queue, lost & self._lost)
        self._lost = frozenset(lost - self._lost)

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """Gives signs of life; while Redis is away or takes no writes, work goes on without."""
        try:
            super().maintain_heartbeats(job, execution)
            if self.records is not None:
                self._end_if_unwanted(job.id, self.records)
        except RedisError as error:
            logger.warning("no sign of life: Redis fails", extra={"error": str(error)})

    def _end_if_unwanted(self, job_id: str, records: JobRecords) -> None:
        """Kills the job's process when it should have stopped by itself, and hangs."""
        try:
            is_unwanted = records.get(job_id).cancel_requested
        except NotFoundError:
            is_unwanted = True
        except AssetError as error:  # nothing is known of it now
            logger.warning("cannot ask for cancellation", extra={"error": str(error)})
            return
        if not is_unwanted:
            return
        now = time.monotonic()
        self._unwanted_since_time = self._unwanted_since_time or now
        if now - self._unwanted_since_time > self.stop_limit_s:
            logger.warning("a job that is to stop does not; killed", extra={"job_id": job_id})
            self.kill_horse()

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Logs what rq itself could not do; the task catches its own errors."""
        logger.error("rq could not run the job", exc_info=exc_info, extra={"job_id": job.id})
