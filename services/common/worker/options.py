# SPDX-License-Identifier: Apache-2.0
"""How a worker process is started, and how long it may take for what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker process is started.

    Attributes:
        module: Python module that the child runs.
        options: JSON-able settings for the child.
        environment: Variables that the child gets besides the parent's.
        slot_count: Slots of the shared memory.
        slot_bytes: Bytes of each slot.
        start_timeout_s: How long imports and warm-up may take.
        busy_silence_s: A worker that gives no sign of life for so long hangs, whatever it is at: an
            import or a build may keep its signs of life back for seconds.
        stop_timeout_s: How long a stop may take before the process is killed.
        silence_timeout_s: One that does not start and is at no command that may take longer hangs
            after so long already.
        memory_limit_bytes: A worker that takes more is replaced; 0 for no limit.
    """

    module: str
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    slot_count: int = 2
    slot_bytes: int = 4 * 1024 * 1024
    start_timeout_s: float = 120.0
    busy_silence_s: float = 30.0
    stop_timeout_s: float = 3.0
    silence_timeout_s: float = 10.0
    memory_limit_bytes: int = 0
