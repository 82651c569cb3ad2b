# SPDX-License-Identifier: Apache-2.0
"""One supervised process: started, started again when it dies, ended with it all."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from services.common.command import UNUSABLE_CODE
from services.common.processes import PRIVATE_UMASK, die_with_parent

logger = logging.getLogger(__name__)

_BACKOFF_START_S = 0.2
_BACKOFF_LIMIT_S = 10.0
_STEADY_S = 30.0


@dataclass(frozen=True)
class ChildSpec:
    """What to run.

    Attributes:
        name: Name for people and for the log file.
        command: The command.
        environment: Variables on top of this process's own.
        address: Where it can be reached, for people.
        is_ready: Says whether it does its work; called until it says yes.
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    address: str
    is_ready: Callable[[], bool]


class Child:
    """A process that is to run for as long as the supervisor does.

    Must be started and looked after by one thread that lives as long as the child should: the
    kernel kills the child when that thread ends.

    Attributes:
        spec: What it runs.
        restart_count: How often it had to be started again.
        is_unusable: It has ended because it cannot run with its settings.
    """

    def __init__(self, spec: ChildSpec, log_folder: Path | None) -> None:
        self.spec = spec
        self.restart_count = 0
        self.is_unusable = False
        self._log_folder = log_folder
        self._process: subprocess.Popen[bytes] | None = None
        self._start_time = 0.0
        self._next_start_time = 0.0
        self._backoff_s = _BACKOFF_START_S

    @property
    def pid(self) -> int | None:
        """Number of the process, if it runs."""
        return self._process.pid if self._process is not None else None

    @property
    def exit_code(self) -> int | None:
        """How the process ended, if it did."""
        return self._process.poll() if self._process is not None else None

    def start(self) -> None:
        """Starts the process, in a session of its own, so that Ctrl-C reaches only us."""
        log = self._open_log()
        try:
            self._process = subprocess.Popen(
                self.spec.command,
                env=os.environ | self.spec.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                umask=PRIVATE_UMASK,
                preexec_fn=die_with_parent,
            )
        finally:
            if log is not None:
                os.close(log)
        self._start_time = time.monotonic()
        logger.debug("started", extra={"child": self.spec.name, "pid": self._process.pid})

    def look_after(self) -> None:
        """Starts the process again if it has ended; waits longer the more often it does."""
        code = self.exit_code
        now = time.monotonic()
        if code is None:
            if now - self._start_time > _STEADY_S:
                self._backoff_s = _BACKOFF_START_S
            return
        self.is_unusable = code == UNUSABLE_CODE
        if self._next_start_time < self._start_time:
            logger.warning(
                "%s ended by itself; starting it again",
                self.spec.name,
                extra={"exit_code": code, "in_s": round(self._backoff_s, 1)},
            )
            self._wait_longer(now)
        if now >= self._next_start_time:
            self._start_again(now)

    def _start_again(self, now: float) -> None:
        try:
            self.start()
        except OSError as error:  # no memory or process left just now
            logger.error("%s cannot be started", self.spec.name, extra={"reason": str(error)})
            self._wait_longer(now)
        else:
            self.restart_count += 1

    def _wait_longer(self, now: float) -> None:
        self._next_start_time = now + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, _BACKOFF_LIMIT_S)

    def ask_to_end(self) -> None:
        """Sends SIGTERM, if the process runs."""
        self._signal(signal.SIGTERM)

    def wait_until_ended(self, timeout_s: float) -> None:
        """Waits for the process to end; kills it, and what it started, when it does not."""
        if self._process is None:
            return
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            logger.warning("%s does not end; killed", self.spec.name)
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _open_log(self) -> int | None:
        if self._log_folder is None:
            return None
        self._log_folder.mkdir(parents=True, exist_ok=True)
        path = self._log_folder / f"{self.spec.name}.log"
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
