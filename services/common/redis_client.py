# SPDX-License-Identifier: Apache-2.0
"""Connects to Redis, with patience for those who work for hours and without for those who wait."""

from __future__ import annotations

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

# How long Redis may take to answer; nobody may ask it to hold an answer back for as long.
ANSWER_LIMIT_S = 5.0


def connect_redis(url: str, *, retries: int = 60, answer_limit_s: float = ANSWER_LIMIT_S) -> Redis:
    """Connects to Redis.

    Args:
        url: Where it is: ``redis://``, ``rediss://`` or ``unix://``.
        retries: How often a command is tried again while Redis is away, at growing distances of
            up to two seconds; the default suits hour-long jobs: about two minutes.
        answer_limit_s: How long one try may wait for a connection, and for an answer.
    """
    patience = Retry(ExponentialBackoff(cap=2.0, base=0.05), retries=retries)
    return Redis.from_url(
        url,
        retry=patience,
        socket_timeout=answer_limit_s,
        socket_connect_timeout=answer_limit_s,
        health_check_interval=30,
    )
