# SPDX-License-Identifier: Apache-2.0
"""What a trainer's worker asks of Redis."""

from __future__ import annotations

from rq.serializers import JSONSerializer

from services.common.job_queue import training_queue
from services.common.redis_client import connect_redis
from services.training.worker import TrainingWorker


def test_a_wait_for_work_ends_well_before_redis_counts_as_away() -> None:
    redis = connect_redis("redis://127.0.0.1:1")
    worker = TrainingWorker(
        [training_queue(redis)],
        connection=redis,
        serializer=JSONSerializer,
        prepare_for_work=False,
    )
    limit_s = connect_redis("redis://127.0.0.1:1").get_connection_kwargs()["socket_timeout"]
    assert worker.dequeue_timeout <= limit_s / 2
