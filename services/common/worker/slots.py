# SPDX-License-Identifier: Apache-2.0
"""Commands with a slot of the shared memory, lent in the order of asking."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from services.common.worker.arena import SharedArena
from services.common.worker.pending import fail

ResultT = TypeVar("ResultT")


@dataclass(eq=False, slots=True)
class SlotCall(Generic[ResultT]):
    """A command that waits for a slot, lies in one at the worker, or is answered; to be awaited.

    It is given at once, without a task of its own, and its answer wakes nobody but who awaits it: a
    frame's way to its worker and back is two turns of the event loop shorter for that.

    Attributes:
        name: What to do.
        body: JSON-able arguments; the slot is added.
        write: Puts what the worker needs into the slot; raises if it is not wanted any more.
        read: Makes the result of slot and answer.
        timeout_s: How long the worker may take once it has the command.
        result: What was read.
        let_go: Is told that nobody waits any more.
        slot: Where it lies at the worker; None before and after.
    """

    name: str
    body: dict[str, Any]
    write: Callable[[int], None]
    read: Callable[[int, dict[str, Any]], ResultT]
    timeout_s: float
    result: asyncio.Future[ResultT]
    let_go: Callable[[SlotCall[Any]], None]
    slot: int | None = None

    def __await__(self) -> Generator[Any, None, ResultT]:
        """Waits for the result; who is cancelled meanwhile abandons it."""
        try:
            return (yield from self.result.__await__())
        except asyncio.CancelledError:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Says that nobody waits any more."""
        self.let_go(self)


class SlotQueue:
    """The slots of one worker and the commands that wait for them."""

    def __init__(self, arena: SharedArena, begin: Callable[[SlotCall[Any], int], None]) -> None:
        """Has all slots free.

        Args:
            arena: The shared memory.
            begin: Gives a command to the worker, with its slot; raises if that cannot be.
        """
        self._arena = arena
        self._begin = begin
        self._free = deque(range(arena.slot_count))
        self._waiting: deque[SlotCall[Any]] = deque()

    @property
    def waiting_count(self) -> int:
        """Commands that wait for a slot."""
        return len(self._waiting)

    def add(self, call: SlotCall[Any]) -> None:
        """Begins a command as soon as there is a slot."""
        self._waiting.append(call)
        self._lend()

    def release(self, call: SlotCall[Any]) -> None:
        """Takes the slot of a command back that the worker is done with."""
        assert call.slot is not None, "only what lies at the worker is answered"
        self._free.append(call.slot)
        call.slot = None
        self._lend()

    def abandon(self, call: SlotCall[Any]) -> None:
        """Forgets a command that waits; marks one at the worker, which need not begin it then.

        The worker may still write into the slot: it is not lent again before the answer came.
        """
        call.result.cancel()
        if call.slot is not None:
            self._arena.set_abandoned(call.slot, True)
        elif call in self._waiting:
            self._waiting.remove(call)

    def _lend(self) -> None:
        while self._free and self._waiting:
            call = self._waiting.popleft()
            slot = call.slot = self._free.popleft()
            try:
                self._begin(call, slot)
            except Exception as error:  # raised where the result is awaited
                call.slot = None
                self._free.append(slot)
                fail(call.result, error)
