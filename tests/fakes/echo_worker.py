# SPDX-License-Identifier: Apache-2.0
"""A worker process that does next to nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from services.common.worker.child import ChildChannel, Handler
from styleavatar_core.errors import EngineUnavailableError, NotFoundError


def refuse(body: dict[str, Any]) -> dict[str, Any]:
    raise NotFoundError("no such thing")


def sleep(body: dict[str, Any]) -> dict[str, Any]:
    time.sleep(body["seconds"])
    return {}


def main() -> None:
    channel = ChildChannel.from_command_line()

    def prepare() -> Mapping[str, Handler]:
        if channel.options.get("refuse"):
            raise EngineUnavailableError("This worker refuses to start.")
        time.sleep(channel.options.get("stall", 0))
        return {"echo": dict, "refuse": refuse, "sleep": sleep}

    channel.serve(prepare, background=frozenset({"sleep"}))


if __name__ == "__main__":
    main()
