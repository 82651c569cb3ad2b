# SPDX-License-Identifier: Apache-2.0
"""The trainer's process: metrics, recovery, then jobs one after another."""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter
from functools import partial

from prometheus_client import CollectorRegistry
from redis import Redis
from redis.exceptions import RedisError
from rq.serializers import JSONSerializer

from services.common.collectors import TrainingMetrics
from services.common.housekeeping import remove_leftovers
from services.common.job_queue import training_queue
from services.common.job_records import JobRecords
from services.common.metrics import serve_metrics
from services.common.redis_client import connect_redis
from services.common.storage import AvatarStore, JobFolders, new_id
from services.training.recovery import recover
from services.training.settings import TrainingSettings
from services.training.worker import TrainingWorker
from styleavatar_core.errors import ConflictError

logger = logging.getLogger(__name__)

# A worker without a sign of life for this long, and a minute, is forgotten.
_WORKER_TTL_S = 20
# Signs of life that a running job gives in the time after which it counts as abandoned.
_SIGNS_PER_LEASE = 4
# How often an idle worker looks for abandoned and lost jobs, at most.
_MAINTENANCE_INTERVAL_S = 5


def run(settings: TrainingSettings) -> None:
    """Serves training jobs until SIGTERM or SIGINT.

    Args:
        settings: What the environment says.
    """
    redis = connect_redis(settings.redis_url)
    require_redis(redis)
    queue = training_queue(redis)
    records = JobRecords(redis)
    # Whoever asks for metrics does not wait for a Redis that is away.
    impatient = connect_redis(settings.redis_url, retries=1, answer_limit_s=1.0)
    registry = job_metrics(JobRecords(impatient))
    stop_metrics = serve_metrics(settings.host, settings.metrics_port, registry)
    folders, store = JobFolders(settings.jobs_folder), AvatarStore(settings.avatars_folder)
    try:
        recover(queue, records)
        remove_leftovers(records, folders, store)
        worker = TrainingWorker(
            [queue],
            name=f"{socket.gethostname()}-{os.getpid()}-{new_id('trainer')}",
            connection=redis,
            serializer=JSONSerializer,
            worker_ttl=_WORKER_TTL_S,
            maintenance_interval=_MAINTENANCE_INTERVAL_S,
            job_monitoring_interval=settings.lease_s // _SIGNS_PER_LEASE,
        )
        worker.lease_s = settings.lease_s
        worker.stop_limit_s = settings.stop_limit_s
        worker.records = records
        worker.remove_leftovers = partial(remove_leftovers, records, folders, store)
        logger.info("trainer ready", extra={"worker": worker.name})
        worker.work(logging_level="WARNING")
    finally:
        stop_metrics()
        impatient.close()
        redis.close()
    logger.info("trainer ends")


def job_metrics(records: JobRecords) -> CollectorRegistry:
    """Returns the trainer's metrics, read from the job records when asked for."""

    def count_present() -> Counter[str]:
        return Counter(job.state.lower() for job in records.list())

    registry = CollectorRegistry()
    TrainingMetrics(registry, count_present, records.totals)
    return registry


def require_redis(redis: Redis) -> None:
    """Makes sure that Redis answers.

    Raises:
        ConflictError: It does not. It is told where it was looked for, without the password that
            its URL may have.
    """
    try:
        redis.ping()
    except RedisError as error:
        where = redis.get_connection_kwargs()
        place = where.get("path") or (
            f"{where.get('host', 'localhost')}:{where.get('port', 6379)}/{where.get('db') or 0}"
        )
        raise ConflictError(
            f"Redis does not answer at {place}: {error}; start it or set REDIS_URL"
        ) from error
