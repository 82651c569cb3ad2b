# SPDX-License-Identifier: Apache-2.0
"""Deleted avatars leave the workers' memory and the cache of derived engines.

Both hold a person's weights. The store is the truth: what is gone from it is let go within seconds,
whether anybody asks for it or not. What went while no service ran goes when one starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Protocol

from services.rendering.catalog import AvatarCatalog, AvatarEntry
from styleavatar_core.engine.cache import EngineCache
from styleavatar_core.errors import NotFoundError, StyleAvatarError

logger = logging.getLogger(__name__)

SWEEP_INTERVAL_S = 5.0


class Workers(Protocol):
    """What holds loaded avatars."""

    async def forget(self, avatar_id: str) -> None:
        """Unloads an avatar everywhere, because it was deleted."""

    async def release(self, entry: AvatarEntry) -> bool:
        """Unloads a bundle, but where it is streamed; whether no worker has or loads it."""


async def keep_forgetting(catalog: AvatarCatalog, workers: Workers, cache: EngineCache) -> None:
    """Sweeps until it is cancelled."""
    is_first = True
    while True:
        try:
            if is_first:
                is_first = not await asyncio.to_thread(forget_deleted_before, catalog, cache)
            await forget_deleted(catalog, workers, cache)
        except OSError as error:
            logger.error("the store cannot be read", extra={"reason": str(error)})
        await asyncio.sleep(SWEEP_INTERVAL_S)


def forget_deleted_before(catalog: AvatarCatalog, cache: EngineCache) -> bool:
    """Removes what earlier services kept of avatars that are not in the store any more.

    Engines of bundles that no service has offered stay: they are of somebody else's.

    Args:
        catalog: Of the store.
        cache: Where engines derived from bundles are kept.

    Returns:
        Whether all of it is gone.

    Raises:
        OSError: The store cannot be read.
    """
    is_gone = True
    present = {entry.digest for entry in catalog.list()}
    try:
        served = cache.served()
    except OSError as error:  # which keeps nobody in memory
        extra = {"folder": str(cache.folder), "reason": str(error)}
        logger.error("engines of deleted avatars cannot be looked for", extra=extra)
        return False
    for digest in served - present:
        try:
            cache.forget(digest)
        except OSError as error:
            extra = {"folder": str(cache.folder), "reason": str(error)}
            logger.error("engines of a deleted avatar cannot be removed", extra=extra)
            is_gone = False
    return is_gone


async def forget_deleted(catalog: AvatarCatalog, workers: Workers, cache: EngineCache) -> None:
    """Lets go of every bundle that was deleted or replaced; what fails is tried again next time.

    Args:
        catalog: Knows the avatars that were seen.
        workers: Hold avatars.
        cache: Where engines derived from bundles are kept.
    """
    await asyncio.to_thread(_mark, catalog.seen(), cache)
    for entry in await asyncio.to_thread(catalog.vanished):
        try:
            is_unloaded = await _is_unloaded(entry, catalog, workers)
            if entry.digest not in {other.digest for other in catalog.seen()}:  # put back as it was
                await asyncio.to_thread(cache.forget, entry.digest)
            if not is_unloaded:  # what is being made of it may yet be kept
                await asyncio.to_thread(cache.mark_served, entry.digest)
                continue
        except (StyleAvatarError, OSError) as error:
            extra = {"avatar_id": entry.avatar_id, "reason": str(error)}
            logger.error("a deleted avatar is not gone yet", extra=extra)
        else:
            catalog.let_go(entry)


async def _is_unloaded(entry: AvatarEntry, catalog: AvatarCatalog, workers: Workers) -> bool:
    """Has workers let a bundle go; whether none has or loads it.

    Streams of one that was replaced keep it to their end.
    """
    try:
        await asyncio.to_thread(catalog.revision, entry.avatar_id)
    except NotFoundError:
        await workers.forget(entry.avatar_id)
    return await workers.release(entry)


def _mark(entries: list[AvatarEntry], cache: EngineCache) -> None:
    """Notes whose engines a service may keep, for the services after it."""
    digests = {entry.digest for entry in entries}
    with contextlib.suppress(OSError):  # who cannot see the notes makes them all once more
        digests -= cache.served()
    for digest in digests:
        cache.mark_served(digest)
