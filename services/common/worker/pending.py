# SPDX-License-Identifier: Apache-2.0
"""Commands that a worker was given and has not answered yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from services.common.errors import error_from_words
from services.common.worker.messages import READY_ID, Answer
from styleavatar_core.errors import WorkerLostError

ResultT = TypeVar("ResultT")


@dataclass(slots=True)
class _Command:
    name: str
    timeout_s: float
    timer: asyncio.TimerHandle
    result: asyncio.Future[Any]
    read: Callable[[dict[str, Any]], Any]
    release: Callable[[], None]


class PendingCommands:
    """Numbers commands, brings answers to who waits for them, and tells of those overdue."""

    def __init__(self, on_overdue: Callable[[str], None]) -> None:
        """Starts empty.

        Args:
            on_overdue: Gets the name of a command whose time has passed.
        """
        self._on_overdue = on_overdue
        self._next_id = READY_ID
        self._commands: dict[int, _Command] = {}

    @property
    def patience_s(self) -> float:
        """How long the most patient of those who wait would wait; 0 when nobody does."""
        commands = self._commands.values()
        return max((c.timeout_s for c in commands if not c.result.done()), default=0.0)

    def expect(
        self,
        result: asyncio.Future[ResultT],
        name: str,
        timeout_s: float,
        read: Callable[[dict[str, Any]], ResultT],
        release: Callable[[], None] = lambda: None,
    ) -> int:
        """Notes a command.

        Args:
            result: Where its result is awaited.
            name: What to do.
            timeout_s: How long it may take.
            read: Makes the result of the answer's body, if anybody still waits for it.
            release: Called when the worker is done with the command, also when nobody waits.

        Returns:
            The command's id.
        """
        command_id, self._next_id = self._next_id, self._next_id + 1
        timer = result.get_loop().call_later(timeout_s, self._overdue, command_id)
        self._commands[command_id] = _Command(name, timeout_s, timer, result, read, release)
        return command_id

    def settle(self, answer: Answer) -> str:
        """Hands an answer on; returns the name of its command."""
        command = self._commands.pop(answer.command_id)
        command.timer.cancel()
        if answer.failure is not None:
            failure = answer.failure
            error = error_from_words(failure.kind, failure.reason, failure.message)
            fail(command.result, error)
        elif not command.result.done():
            command.result.set_result(command.read(answer.body))
        command.release()
        return command.name

    def lose_all(self) -> None:
        """Tells everybody who waits that the worker is gone."""
        commands, self._commands = self._commands, {}
        for command in commands.values():
            command.timer.cancel()
            fail(command.result, WorkerLostError("The worker process died."))
            command.release()

    def _overdue(self, command_id: int) -> None:
        command = self._commands[command_id]
        self._on_overdue(command.name)
        limit = f"{command.timeout_s:.0f} s"
        message = f"The worker did not answer '{command.name}' within {limit} and was stopped."
        fail(command.result, WorkerLostError(message))


def fail(result: asyncio.Future[Any], error: Exception) -> None:
    """Tells who waits for a result that there is none, if anybody does."""
    if not result.done():
        result.set_exception(error)
        result.exception()  # a caller that has gone must not leave a warning
