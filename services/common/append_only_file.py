# SPDX-License-Identifier: Apache-2.0
"""Redis' append-only file: what was deleted stays in it until it is written anew."""

from __future__ import annotations

import logging

from redis import Redis
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

# After which deletion the file was last begun anew, with the run of Redis that began it.
_REWRITTEN_AFTER = "styleavatar:rewritten-after-job"


def rewrite_after(redis: Redis, deletion: str) -> None:
    """Has Redis write its append-only file, where it has one, anew once after a deletion.

    To be called again, later: Redis does not begin while it is at it, and may fail.

    Args:
        redis: The server.
        deletion: What was deleted last.
    """
    try:
        state = redis.info("persistence")
        if not state["aof_enabled"] or state["aof_rewrite_in_progress"]:
            return
        # A server that was started anew knows nothing of how the last rewrite ended.
        server = redis.info("server")["run_id"]
        begun = f"{deletion} {server}".encode()
        is_begun = redis.get(_REWRITTEN_AFTER) == begun
        if is_begun and state["aof_last_bgrewrite_status"] == "ok":
            return
        redis.bgrewriteaof()
        redis.set(_REWRITTEN_AFTER, begun)
    except RedisError as error:  # it is away just now, or does not let us
        logger.info("the append-only file is not rewritten now", extra={"why": str(error)})
