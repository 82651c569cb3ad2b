# SPDX-License-Identifier: Apache-2.0
"""What gRPC's health service tells of each avatar under ``avatar/ID``.

An avatar is SERVING when a worker holds it ready, and a stream of it begins at once. NOT_SERVING:
it is in the store and would have to be loaded, or cannot be. What is not in the store is unknown.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from services.rendering.catalog import AvatarCatalog, AvatarEntry
from styleavatar_core.errors import NotFoundError

logger = logging.getLogger(__name__)

PREFIX = "avatar/"

Tell = Callable[[str, bool | None], None]


class AvatarHealth:
    """Tells what changes; nobody waits for it."""

    def __init__(
        self, catalog: AvatarCatalog, is_loaded: Callable[[AvatarEntry], bool], tell: Tell
    ) -> None:
        """Connects the parts.

        Args:
            catalog: Which avatars there are.
            is_loaded: Whether a worker holds one ready, as it is now.
            tell: Takes a name and whether it serves; None for what is not there.
        """
        self._catalog = catalog
        self._is_loaded = is_loaded
        self._tell = tell
        self._changed: asyncio.Queue[str] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def change(self, avatar_id: str) -> None:
        """Says that an avatar came to a place or went from one; may be called from any thread."""
        self._loop.call_soon_threadsafe(self._changed.put_nowait, avatar_id)

    async def keep_telling(self) -> None:
        """Tells of changes until it is cancelled."""
        while True:
            avatar_id = await self._changed.get()
            entry = self._catalog.known(avatar_id)
            serving: bool | None = entry is not None and self._is_loaded(entry)
            try:
                await asyncio.to_thread(self._catalog.revision, avatar_id)
            except NotFoundError:
                serving = None
            except OSError as error:  # what the workers hold is known all the same
                logger.warning("the store cannot be read", extra={"reason": str(error)})
            self._tell(f"{PREFIX}{avatar_id}", serving)
