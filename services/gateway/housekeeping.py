# SPDX-License-Identifier: Apache-2.0
"""What a gateway does when nobody asks it for anything: it forgets what was deleted or expired."""

from __future__ import annotations

import asyncio
import itertools
import logging
from datetime import timedelta

from redis.exceptions import RedisError

from services.common.housekeeping import remove_expired, remove_leftovers
from services.gateway.dependencies import Parts

logger = logging.getLogger(__name__)

INTERVAL_S = 60.0
# Of so many rounds one looks at all jobs; the others see only to what was deleted just before.
_ROUNDS = 60


async def keep_house(parts: Parts) -> None:
    """Tidies up until it is canceled, each minute a little and each hour everything."""
    for number in itertools.count():
        await asyncio.sleep(INTERVAL_S)
        await asyncio.to_thread(_tidy_up, parts, is_thorough=number % _ROUNDS == 0)


def _tidy_up(parts: Parts, *, is_thorough: bool) -> None:
    try:
        if is_thorough:
            remove_leftovers(parts.records, parts.folders, parts.store)
            if days := parts.settings.unfinished_jobs_days:
                remove_expired(parts.records, parts.folders, timedelta(days=days))
        else:
            parts.records.forget_deleted()
    except RedisError as error:
        logger.warning("no tidying up: Redis fails", extra={"reason": str(error)})
    except Exception:  # the next round is not to be lost with this one
        logger.exception("tidying up failed")
