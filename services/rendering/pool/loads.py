# SPDX-License-Identifier: Apache-2.0
"""Avatars that a worker is loading: all who ask for one share its load."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

from services.common.worker.process import WorkerProcess
from services.rendering.catalog import AvatarEntry
from services.rendering.pool.shelf import EngineKey
from styleavatar_core.errors import OverloadedError

# Avatars that a worker loads or that wait for it; another one is refused.
LOAD_LIMIT = 4


class EngineLoads:
    """Loads under way or waiting for their turn.

    Attributes:
        turn: Held by the load that is under way.
    """

    def __init__(self, load: Callable[[AvatarEntry], Coroutine[Any, Any, WorkerProcess]]) -> None:
        """Starts with none.

        Args:
            load: Waits for an avatar's turn and loads it; returns the worker that has it.
        """
        # A worker loads one avatar at a time: the time of each begins when its turn has come.
        self.turn = asyncio.Lock()
        self._load = load
        self._tasks: dict[EngineKey, asyncio.Task[WorkerProcess]] = {}
        self._deleted: set[EngineKey] = set()  # while they are loaded

    def __contains__(self, key: object) -> bool:
        return key in self._tasks

    def __len__(self) -> int:
        return len(self._tasks)

    def require_room(self) -> None:
        """Lets one more avatar be loaded.

        Raises:
            OverloadedError: When too many wait to be loaded.
        """
        if len(self) >= LOAD_LIMIT:
            raise OverloadedError(
                f"{LOAD_LIMIT} avatars are being loaded before this one; try again later.",
                retry_delay_s=5.0,
                reason="LOADS_WAIT",
            )

    async def join(self, entry: AvatarEntry) -> WorkerProcess:
        """Waits for an avatar's load, which begins if there is none; raises what it raises.

        Who stops waiting does not stop the load.
        """
        task = self._tasks.get(entry.key)
        if task is None:
            task = self._tasks[entry.key] = asyncio.create_task(self._load(entry))
            task.add_done_callback(functools.partial(self._end, entry.key))
        return await asyncio.shield(task)

    def mark_deleted(self, avatar_id: str) -> None:
        """Notes that an avatar is gone, should it be on its way."""
        self._deleted.update(key for key in self._tasks if key[0] == avatar_id)

    def is_deleted(self, key: EngineKey) -> bool:
        """Whether an avatar went while it was loaded."""
        return key in self._deleted

    def _end(self, key: EngineKey, task: asyncio.Task[WorkerProcess]) -> None:
        del self._tasks[key]
        self._deleted.discard(key)
        if not task.cancelled():
            task.exception()  # callers that have gone must not leave a warning
