# SPDX-License-Identifier: Apache-2.0
"""Keeps engines beside what goes on: first pictures do not wait for the cache.

For engines that are made in about a second. Those that take long are written by
``EngineCache.open``, which makes other builders wait instead of building them again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from styleavatar_core.engine.cache import EngineCache
from styleavatar_core.engine.cache_key import CacheKey

logger = logging.getLogger(__name__)

_NICENESS = 10
_LATER_S = 1.0  # runtimes let no other thread run Python while they write: pictures go first

_hurry = threading.Event()


def _give_way() -> None:
    """Lets every other thread of the machine go first, where threads have a priority."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


# One after the other: what is written is in memory meanwhile. A process ends after the last.
_writer = ThreadPoolExecutor(1, thread_name_prefix="engine-keeping", initializer=_give_way)


def keep_beside(
    cache: EngineCache,
    key: CacheKey,
    contents: Callable[[], bytes],
    is_wanted: Callable[[], bool],
) -> None:
    """Writes an entry soon, without waiting for it.

    Args:
        cache: Where.
        key: Which entry.
        contents: Gives the contents of the entry.
        is_wanted: Asked when they are written; if not, all that is kept of the avatar goes. Without
            it, an avatar deleted meanwhile would leave the person's weights behind.
    """

    def keep() -> None:
        """Writes it; what goes wrong costs the entry only."""
        _hurry.wait(_LATER_S)
        try:
            cache.replace(key, contents())
            if not is_wanted():
                forget_deleted(cache, key.digest)
        except Exception:
            logger.warning(
                "engine could not be kept and will be built again next time",
                extra={"entry": key.file_name},
                exc_info=True,
            )

    _writer.submit(keep)


def forget_deleted(cache: EngineCache, digest: str) -> None:
    """Removes what was kept of an avatar that is deleted; what stays is told, and nothing fails.

    Args:
        cache: Where.
        digest: ``AvatarBundle.digest``.
    """
    try:
        cache.forget(digest)
    except OSError as error:
        logger.error("engines of a deleted avatar cannot be removed", extra={"why": str(error)})


def wait_until_kept() -> None:
    """Has the entries that wait written at once, and waits for them."""
    _hurry.set()
    _writer.submit(_hurry.clear).result()
