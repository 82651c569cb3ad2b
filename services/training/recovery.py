# SPDX-License-Identifier: Apache-2.0
"""Takes up what dead trainers left, and puts back what was lost.

rq alone would wait for a job's lease to end. A trainer on the same machine can see at once that
a worker's process is gone, and ends its leases. And rq can lose a job: when a worker dies between
taking it and starting it, or when Redis comes back without its last writes. The records still
have it, so every trainer looks whether rq has what they say is not done.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from datetime import UTC, datetime, timedelta

from rq.queue import Queue
from rq.registry import StartedJobRegistry
from rq.worker import BaseWorker, Worker

from services.common.job_queue import enqueue_training
from services.common.job_records import JobRecords
from services.common.processes import is_alive

logger = logging.getLogger(__name__)

# An upload that the gateway accepts just now has its record before its folder and its place in the
# queue.
_UPLOAD_GRACE = timedelta(minutes=1)


def recover(queue: Queue, records: JobRecords) -> None:
    """Puts abandoned jobs back into the queue.

    Args:
        queue: The training queue.
        records: The job records.
    """
    end_leases_of_dead_workers(queue)
    requeue(queue, find_lost_jobs(queue, records))


def end_leases_of_dead_workers(queue: Queue) -> None:
    """Ends the leases of workers of this machine whose process is gone."""
    registry = StartedJobRegistry(queue=queue)
    for worker in Worker.all(queue=queue, serializer=queue.serializer):
        if not _is_dead(worker):
            continue
        for execution in worker.get_current_executions(refresh=True):
            queue.connection.zadd(registry.key, {execution.composite_key: time.time() - 1}, xx=True)
            logger.info("worker is dead; its job goes on", extra={"job_id": execution.job_id})
        worker.register_death()
    registry.cleanup()


def find_lost_jobs(queue: Queue, records: JobRecords) -> set[str]:
    """Returns the jobs that are not final but that rq has nowhere at this moment.

    A job that is just going from one place to another may be among them: whoever looks often
    puts back only what was lost at the look before, too.
    """
    waiting = set(queue.get_job_ids())
    started = set(StartedJobRegistry(queue=queue).get_job_ids(cleanup=False))
    newest = datetime.now(UTC) - _UPLOAD_GRACE
    return {
        job.job_id
        for job in records.list()
        # The gateway is about to queue what it has just accepted.
        if not job.state.is_final and (job.attempt > 0 or job.created_time < newest)
    } - (waiting | started)


def requeue(queue: Queue, job_ids: set[str]) -> None:
    """Puts lost jobs back into the queue."""
    for job_id in sorted(job_ids):
        logger.info("job was in no queue; put back", extra={"job_id": job_id})
        enqueue_training(queue.connection, job_id)


def _is_dead(worker: BaseWorker) -> bool:
    """Says whether a worker registered on this machine has no process any more.

    A container keeps its host name over a restart and gives its first process the same number
    again: a worker with our own number, before we registered, is an earlier one.
    """
    if worker.hostname != socket.gethostname() or worker.pid is None:
        return False
    return worker.pid == os.getpid() or not is_alive(worker.pid)
