# SPDX-License-Identifier: Apache-2.0
"""Log lines of all services: one line for people or one JSON object, with ids from the context."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

request_id: ContextVar[str] = ContextVar("request_id", default="")
session_id: ContextVar[str] = ContextVar("session_id", default="")
job_id: ContextVar[str] = ContextVar("job_id", default="")

_CONTEXT = {"request_id": request_id, "session_id": session_id, "job_id": job_id}
_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_STANDARD |= {"service", "color_message"}


def configure_logging(service: str, level: str = "INFO", format: str = "console") -> None:
    """Sends all records of this process to stderr in one format.

    Args:
        service: Name put in every line: ``gateway``, ``trainer`` and so on.
        level: Least severe level that is logged.
        format: ``console`` or ``json``.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service) if format == "json" else ConsoleFormatter(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("httpx", "httpcore", "numba", "PIL", "matplotlib", "rq.worker", "absl"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


def _extras(record: logging.LogRecord) -> dict[str, object]:
    """Returns what the caller put in ``extra`` and what the context knows."""
    values: dict[str, object] = {name: var.get() for name, var in _CONTEXT.items() if var.get()}
    values.update({k: v for k, v in vars(record).items() if k not in _STANDARD})
    return values


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for machines."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Returns the record as one JSON object."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
            **_extras(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class ConsoleFormatter(logging.Formatter):
    """One line for people: time, level, service, message, then ``name=value`` pairs."""

    def __init__(self, service: str) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(service)s: %(message)s", "%H:%M:%S")
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Returns the record as one line, followed by a stack trace if it carries one."""
        record.service = self._service
        extras = " ".join(f"{name}={_on_one_line(v)}" for name, v in _extras(record).items())
        text = super().format(record)
        if not extras:
            return text
        head, newline, rest = text.partition("\n")
        return f"{head} {extras}{newline}{rest}"


def _on_one_line(value: object) -> str:
    """Returns a value as text; what a caller sent cannot pass for a line of ours."""
    text = str(value)
    return text if text.isprintable() else repr(text)
