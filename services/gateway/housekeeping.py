# SPDX-License-Identifier: Apache-2.0
"""What a gateway does when nobody asks it for anything: it forgets what was deleted or expired."""

from __future__ import annotations

import itertools
import logging
import threading
from datetime import timedelta

from redis.exceptions import RedisError

from services.common.housekeeping import remove_expired, remove_leftovers
from services.gateway.dependencies import Parts

logger = logging.getLogger(__name__)

INTERVAL_S = 60.0
# Of so many rounds one looks at all jobs; the others see only to what was deleted just before.
_ROUNDS = 60


def start_housekeeping(parts: Parts) -> threading.Event:
    """Tidies up in a thread, each minute a little and each hour everything.

    Nobody waits for it: what a gateway that ends leaves half done is done by the next.

    Returns:
        Set it to end this.
    """
    is_over = threading.Event()
    threading.Thread(
        target=_keep_house, args=(parts, is_over), name="housekeeping", daemon=True
    ).start()
    return is_over


def _keep_house(parts: Parts, is_over: threading.Event) -> None:
    for number in itertools.count():
        if is_over.wait(INTERVAL_S):
            return
        _tidy_up(parts, is_thorough=number % _ROUNDS == 0)


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
