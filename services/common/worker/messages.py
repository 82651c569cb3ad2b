# SPDX-License-Identifier: Apache-2.0
"""What a service and its worker say to each other: one JSON array a line.

Between two frames an engine has swept the processor's caches: what counts is how much code and how
many objects a message touches, hence arrays, and a coder made once.
"""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass, field
from typing import Any

LINE_BYTES_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Command:
    """Service to worker: do this.

    Attributes:
        command_id: Echoed by the answer.
        name: What to do.
        body: JSON-able arguments.
    """

    command_id: int
    name: str
    body: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a command failed.

    Attributes:
        kind: Name of the error type in ``styleavatar_core.errors``.
        reason: Stable UPPER_SNAKE word.
        message: One sentence for people.
    """

    kind: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Worker to service: done, or not.

    The first answer of a worker has the id 0 and says that it is ready, or why it never will be.

    Attributes:
        command_id: Id of the command.
        body: JSON-able result.
        failure: Set when it failed.
    """

    command_id: int
    body: dict[str, Any] = field(default_factory=dict)
    failure: Failure | None = None


READY_ID = 0
# Answers that nobody asked for: the worker is alive; the body says how much memory it takes.
BEAT_ID = -1
BEAT_INTERVAL_S = 1.0
# Reason of the failure of a command for which there was not enough memory.
OUT_OF_MEMORY = "OUT_OF_MEMORY"
# A command that every worker answers, if it can answer at all.
PING = "ping"


_write = json.JSONEncoder(separators=(",", ":")).encode
_read = json.JSONDecoder().raw_decode


def encode_command(command: Command) -> bytes:
    """Writes a command as one line; floats come back exactly as they were."""
    return _write((command.command_id, command.name, command.body)).encode() + b"\n"


def encode_answer(answer: Answer) -> bytes:
    """Writes an answer as one line; floats come back exactly as they were."""
    failure = answer.failure and astuple(answer.failure)
    return _write((answer.command_id, answer.body, failure)).encode() + b"\n"


def decode_command(line: bytes) -> Command:
    """Reads a command from its line."""
    return Command(*_read(line.decode())[0])


def decode_answer(line: bytes) -> Answer:
    """Reads an answer from its line."""
    command_id, body, failure = _read(line.decode())[0]
    return Answer(command_id, body, failure and Failure(*failure))
