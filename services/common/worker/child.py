# SPDX-License-Identifier: Apache-2.0
"""The child's side: reads commands, answers them, ends when the parent is gone."""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import logging
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from services.common.processes import memory_bytes
from services.common.worker.arena import SharedArena
from services.common.worker.messages import (
    BEAT_ID,
    BEAT_INTERVAL_S,
    OUT_OF_MEMORY,
    PING,
    READY_ID,
    Answer,
    Command,
    Failure,
    decode_command,
    encode_answer,
)
from styleavatar_core.errors import OverloadedError, RenderError, StyleAvatarError

logger = logging.getLogger(__name__)

# Of what has come, so much is read at once; a command takes some hundred bytes.
READ_BYTES = 1 << 16

Body = dict[str, Any]
Handler = Callable[[Body], Body]


@dataclass(frozen=True, slots=True)
class Together:
    """A handler that takes all commands of its name that wait.

    Attributes:
        handle: Takes their bodies in order; yields position and answer of each as it is ready.
    """

    handle: Callable[[Sequence[Body]], Iterator[tuple[int, Body | Exception]]]


Handlers = Mapping[str, Handler | Together]


class ChildChannel:
    """The child's end of the socket."""

    def __init__(self, connection: socket.socket, arena: SharedArena, options: Body) -> None:
        """Holds the parts.

        Args:
            connection: Connected socket to the parent.
            arena: Shared memory.
            options: What the parent wants this worker to be.
        """
        self.arena = arena
        self.options = options
        self._connection = connection
        self._send_lock = threading.Lock()

    @classmethod
    def from_command_line(cls) -> ChildChannel:
        """Takes over what the parent passed; the parent alone decides when to stop."""
        parser = argparse.ArgumentParser(description="A worker process; started by its service.")
        parser.add_argument("--socket", type=int, required=True)
        parser.add_argument("--arena", type=int, nargs=3, required=True)
        parser.add_argument("--options", type=json.loads, required=True)
        arguments = parser.parse_args()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return cls(
            socket.socket(fileno=arguments.socket), SharedArena(*arguments.arena), arguments.options
        )

    def serve(
        self, prepare: Callable[[], Handlers], background: frozenset[str] = frozenset()
    ) -> None:
        """Answers commands until the parent closes the socket.

        Args:
            prepare: Imports and warms up what is heavy, then gives the handlers by command name.
            background: Commands that may take long: they run one at a time beside the others.
        """
        threading.Thread(target=self._beat, name="beat", daemon=True).start()
        try:
            handlers = {PING: _pong, **prepare()}
        except Exception as error:
            self._send(Answer(READY_ID, failure=_describe(error)))
            return
        # What was imported stays for good: collecting it again would hold up a frame.
        gc.collect()
        gc.freeze()
        self._send(Answer(READY_ID))
        slow = ThreadPoolExecutor(max_workers=1, thread_name_prefix="background")
        for waiting in self._arrivals():
            for name, run in itertools.groupby(waiting, key=lambda command: command.name):
                handler, commands = handlers[name], list(run)
                if isinstance(handler, Together):
                    self._execute_together(handler, commands)
                    continue
                for command in commands:
                    if name in background:
                        slow.submit(self._execute, handler, command)
                    else:
                        self._execute(handler, command)
        slow.shutdown(wait=False, cancel_futures=True)

    def _arrivals(self) -> Iterator[list[Command]]:
        """Yields the commands that have come since the last time, at least one."""
        rest = b""
        while data := self._connection.recv(READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            if lines:
                yield [decode_command(line) for line in lines]

    def _execute(self, handler: Handler, command: Command) -> None:
        try:
            self._answer(command, handler(command.body))
        except Exception as error:
            self._answer(command, error)

    def _execute_together(self, handler: Together, commands: list[Command]) -> None:
        left = dict(enumerate(commands))
        try:
            for index, answer in handler.handle([command.body for command in commands]):
                self._answer(left.pop(index), answer)
        except Exception as error:
            for command in left.values():
                self._answer(command, error)

    def _answer(self, command: Command, answer: Body | Exception) -> None:
        if isinstance(answer, Exception):
            self._send(Answer(command.command_id, failure=_describe(answer)))
        else:
            self._send(Answer(command.command_id, answer))

    def _beat(self) -> None:
        while self._send(Answer(BEAT_ID, {"memory_bytes": memory_bytes()})):
            time.sleep(BEAT_INTERVAL_S)

    def _send(self, answer: Answer) -> bool:
        try:
            with self._send_lock:
                self._connection.sendall(encode_answer(answer))
        except OSError:
            logger.debug("the parent is gone")
            return False
        return True


def _pong(body: Body) -> Body:
    return {}


def lacks_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says that there is not enough memory."""
    while error is not None:
        # Frameworks have errors of this name of their own for the memory of a device; runtimes
        # without types of their own say it in words.
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        if re.search("out of memory|failed to allocate memory", str(error), re.IGNORECASE):
            return True
        error = error.__cause__
    return False


def _describe(error: Exception) -> Failure:
    if lacks_memory(error):
        logger.error("a worker is out of memory", extra={"reason": str(error)})
        message = "There is not enough memory for this now; try again later."
        return Failure(OverloadedError.__name__, OUT_OF_MEMORY, message)
    if isinstance(error, StyleAvatarError):
        return Failure(type(error).__name__, error.reason, str(error))
    logger.error("unexpected error in a worker", exc_info=error)
    message = f"The worker failed on this with {type(error).__name__}; its log has the details."
    return Failure(RenderError.__name__, "INTERNAL", message)
