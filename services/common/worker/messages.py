# SPDX-License-Identifier: Apache-2.0
"""What a service and its worker say to each other: one JSON object a line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from dataclasses import fields as fields_of
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
# A command that every worker answers, if it can answer at all.
PING = "ping"


def encode_line(message: Command | Answer) -> bytes:
    """Writes a message as one line; floats come back exactly as they were."""
    # Not asdict(): it copies every number of the body, which costs more than the rest of the call.
    fields = {field.name: getattr(message, field.name) for field in fields_of(message)}
    return json.dumps(fields, separators=(",", ":"), default=asdict).encode() + b"\n"


def decode_command(line: bytes) -> Command:
    """Reads a command from its line."""
    return Command(**json.loads(line))


def decode_answer(line: bytes) -> Answer:
    """Reads an answer from its line."""
    fields = json.loads(line)
    failure = fields.pop("failure")
    return Answer(**fields, failure=Failure(**failure) if failure else None)
