# SPDX-License-Identifier: Apache-2.0
"""Deleted avatars leave the workers' memory and the cache of derived engines.

Both hold a person's weights. The store is the truth: what is gone from it is let go within seconds,
whether anybody asks for it or not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from services.rendering.catalog import AvatarCatalog
from styleavatar_core.engine.cache import EngineCache
from styleavatar_core.errors import NotFoundError, StyleAvatarError

logger = logging.getLogger(__name__)

SWEEP_INTERVAL_S = 5.0


async def keep_forgetting(
    catalog: AvatarCatalog, unload: Callable[[str], Awaitable[None]], cache: EngineCache
) -> None:
    """Sweeps until it is cancelled."""
    while True:
        await asyncio.sleep(SWEEP_INTERVAL_S)
        try:
            await forget_deleted(catalog, unload, cache)
        except OSError as error:
            logger.error("the store cannot be read", extra={"reason": str(error)})


async def forget_deleted(
    catalog: AvatarCatalog, unload: Callable[[str], Awaitable[None]], cache: EngineCache
) -> None:
    """Lets go of every bundle that was deleted or replaced; what fails is tried again next time.

    Args:
        catalog: Knows the avatars that were seen.
        unload: Takes an avatar out of the workers.
        cache: Where engines derived from bundles are kept.
    """
    for entry in await asyncio.to_thread(catalog.vanished):
        try:
            await asyncio.to_thread(cache.forget, entry.digest)
            try:
                await asyncio.to_thread(catalog.revision, entry.avatar_id)
            except NotFoundError:
                await unload(entry.avatar_id)
        except (StyleAvatarError, OSError) as error:
            extra = {"avatar_id": entry.avatar_id, "reason": str(error)}
            logger.error("a deleted avatar is not gone yet", extra=extra)
        else:
            catalog.let_go(entry)
