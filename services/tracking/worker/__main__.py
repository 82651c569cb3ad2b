# SPDX-License-Identifier: Apache-2.0
"""A tracking worker; started by the tracking service."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Mapping

from services.common.logging import configure_logging
from services.common.worker.child import ChildChannel, Handler
from services.tracking.worker.runner import Runner


def main() -> None:
    """Tracks until the service closes the socket."""
    channel = ChildChannel.from_command_line()
    _silence_native_code()
    options = channel.options
    configure_logging("tracking-worker", options["log_level"], options["log_format"])

    def prepare() -> Mapping[str, Handler]:
        module, _, name = options["tracker"].partition(":")
        open_one = getattr(importlib.import_module(module), name)
        # Imports, models, compiled code: warm before any stream. With this protobuf, importing
        # MediaPipe prints one error line that means nothing.
        with contextlib.redirect_stderr(io.StringIO()):
            open_one("", None, False).close()
        runner = Runner(channel.arena, open_one)
        return {"open": runner.open, "close": runner.close, "track": runner.track}

    channel.serve(prepare)


def _silence_native_code() -> None:
    """Lets only Python write to stderr: MediaPipe's libraries greet each stream with warnings."""
    sys.stderr = os.fdopen(os.dup(sys.stderr.fileno()), "w", buffering=1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    os.close(silence)


if __name__ == "__main__":
    main()
