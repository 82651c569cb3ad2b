# SPDX-License-Identifier: Apache-2.0
"""One stream's way to the worker that its avatar lives in."""

from __future__ import annotations

import functools
import math

from services.rendering.catalog import AvatarEntry
from services.rendering.pool.frames import AVATAR_NOT_LOADED, RenderedPicture
from services.rendering.pool.slot import PoolSlot
from styleavatar_core.errors import RenderError
from styleavatar_core.types import FaceParameters


class Lane:
    """Knows the place, whatever process is there."""

    def __init__(self, slot: PoolSlot, entry: AvatarEntry) -> None:
        self.entry = entry
        self._slot = slot

    async def load(self) -> None:
        """Waits until the avatar is ready."""
        await self._slot.ready_worker(self.entry)

    async def render(
        self,
        parameters: FaceParameters,
        *,
        with_mask: bool = False,
        give_up_s: float = math.inf,
    ) -> RenderedPicture:
        """Renders one picture.

        Args:
            parameters: In the coordinates of the avatar's window.
            with_mask: Whether the mask is wanted too.
            give_up_s: ``time.perf_counter()`` after which a frame that still waits is not begun.

        Returns:
            The picture.

        Raises:
            OverloadedError: When the frame had to wait too long, with the reason FRAME_LATE.
            WorkerLostError: When the worker died on the way; another attempt goes to a new one.
            StyleAvatarError: What the worker reported.
        """
        ask = functools.partial(
            self._slot.render, self.entry, parameters, with_mask=with_mask, give_up_s=give_up_s
        )
        try:
            return await ask()
        except RenderError as error:
            if error.reason != AVATAR_NOT_LOADED:
                raise
            # Another stream's avatar took its place in the moment before this one was pinned.
            return await ask()
