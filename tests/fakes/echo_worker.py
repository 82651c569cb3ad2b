# SPDX-License-Identifier: Apache-2.0
"""A worker process that does next to nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any

from services.common.worker.child import ChildChannel, Handlers, Together
from styleavatar_core.errors import EngineUnavailableError, NotFoundError


def refuse(body: dict[str, Any]) -> dict[str, Any]:
    raise NotFoundError("no such thing")


def sleep(body: dict[str, Any]) -> dict[str, Any]:
    time.sleep(body["seconds"])
    return {}


def spawn(body: dict[str, Any]) -> dict[str, Any]:
    """Starts a process that keeps all descriptors of this one open."""
    child = subprocess.Popen(["sleep", "60"], close_fds=False)
    return {"pid": child.pid}


def gather(bodies: Sequence[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any] | Exception]]:
    """Answers in reverse order how many came together; negative values are refused."""
    for index in reversed(range(len(bodies))):
        value = bodies[index]["value"]
        answer = {"value": value, "count": len(bodies)}
        yield index, NotFoundError("no such thing") if value < 0 else answer


def main() -> None:
    channel = ChildChannel.from_command_line()

    def prepare() -> Handlers:
        if channel.options.get("refuse"):
            raise EngineUnavailableError("This worker refuses to start.")
        if channel.options.get("freeze"):
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(channel.options.get("stall", 0))
        answering = {"echo": dict, "refuse": refuse, "sleep": sleep, "stall": sleep, "spawn": spawn}
        return {**answering, "gather": Together(gather)}

    channel.serve(prepare, background=frozenset({"sleep"}))


if __name__ == "__main__":
    main()
