# SPDX-License-Identifier: Apache-2.0
"""A rendering worker; started by the rendering service."""

from __future__ import annotations

import sys

from services.common.logging import configure_logging
from services.common.worker.child import ChildChannel, Handlers, Together
from services.rendering.worker.runner import Runner, renderer_opener

# An avatar is loaded beside frames: with Python's 5 ms a frame that hands over the interpreter for
# each of its many operators on a device waits that long, again and again.
_SWITCH_INTERVAL_S = 0.0005


def main() -> None:
    """Renders until the service closes the socket."""
    channel = ChildChannel.from_command_line()
    options = channel.options
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    configure_logging("rendering-worker", options["log_level"], options["log_format"])

    def prepare() -> Handlers:
        open_renderer = renderer_opener(
            options["renderer"],
            options["backend"],
            options["precision"],
            options["thread_count"],
        )
        runner = Runner(channel.arena, open_renderer)
        return {"load": runner.load, "unload": runner.unload, "render": Together(runner.render)}

    channel.serve(prepare, background=frozenset({"load"}))


if __name__ == "__main__":
    main()
