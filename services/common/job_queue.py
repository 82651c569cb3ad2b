# SPDX-License-Identifier: Apache-2.0
"""The queue of training jobs: who runs which job next is decided by rq."""

from __future__ import annotations

import contextlib

from redis import Redis
from redis.lock import Lock
from rq.exceptions import InvalidJobOperation
from rq.job import Job, Retry
from rq.queue import Queue
from rq.serializers import JSONSerializer

TRAINING_QUEUE = "styleavatar-training"
TRAIN_TASK = "services.training.tasks.train_avatar"
RETRY_LIMIT = 100
# A move takes milliseconds: a lock this old has no living holder.
_MOVE_LIMIT_S = 10


def training_queue(redis: Redis) -> Queue:
    """Returns the queue of training jobs; what is in it is JSON, never pickle."""
    return Queue(TRAINING_QUEUE, connection=redis, serializer=JSONSerializer)


def enqueue_training(redis: Redis, job_id: str) -> None:
    """Puts a job into the queue, once.

    The job's record says how many interruptions are enough; rq's own limit is far beyond it.
    """
    with _alone(redis, job_id):
        _take_out(redis, job_id)
        training_queue(redis).enqueue_call(
            TRAIN_TASK,
            args=(job_id,),
            job_id=job_id,
            timeout=-1,
            result_ttl=0,
            retry=Retry(max=RETRY_LIMIT),
        )


def withdraw_training(redis: Redis, job_id: str) -> None:
    """Takes a waiting job out of the queue; not to be used on a running one."""
    with _alone(redis, job_id):
        _take_out(redis, job_id)


def _alone(redis: Redis, job_id: str) -> Lock:
    """Lets trainers and the gateway move a job one after another: rq would have it twice."""
    return redis.lock(f"styleavatar:move:{job_id}", timeout=_MOVE_LIMIT_S, sleep=0.01)


def _take_out(redis: Redis, job_id: str) -> None:
    queue = training_queue(redis)
    queue.intermediate_queue.remove(job_id)
    job = queue.fetch_job(job_id)
    if job is not None:
        forget_executions(job)
        with contextlib.suppress(InvalidJobOperation):  # its worker has just done with it
            job.delete()


def forget_executions(job: Job) -> None:
    """Makes rq forget earlier executions of a job.

    Their records expire about a minute after their worker's death, the list of them does not, and
    rq then can neither finish nor delete the job.
    """
    job.connection.delete(job.execution_registry.key)
