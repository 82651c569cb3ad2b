# SPDX-License-Identifier: Apache-2.0
"""Log lines carry their data and the ids of their context, in both formats."""

from __future__ import annotations

import json
import logging
import sys

from services.common.logging import ConsoleFormatter, JsonFormatter, job_id


def record(**extra: object) -> logging.LogRecord:
    values = {"name": "x", "levelname": "INFO", "levelno": logging.INFO, "msg": "it %s"}
    return logging.makeLogRecord(values | {"args": ("works",)} | extra)


def test_json_line() -> None:
    token = job_id.set("job-1")
    try:
        line = json.loads(JsonFormatter("trainer").format(record(count=3)))
    finally:
        job_id.reset(token)
    expected = {"service": "trainer", "message": "it works", "count": 3, "job_id": "job-1"}
    assert expected.items() <= line.items()


def test_console_line_keeps_data_before_the_stack_trace() -> None:
    try:
        raise ValueError("no")
    except ValueError:
        text = ConsoleFormatter("trainer").format(record(count=3, exc_info=sys.exc_info()))
    first, *rest = text.splitlines()
    assert first.endswith("INFO    trainer: it works count=3")
    assert rest[-1] == "ValueError: no"


def test_what_callers_sent_stays_on_the_line_of_its_record() -> None:
    sent = "no\n12:00:00 ERROR   trainer: all is lost\x1b[2J"
    text = ConsoleFormatter("trainer").format(record(cause=sent, place="where we are"))
    assert text.endswith(f"it works cause={sent!r} place=where we are")
    assert text.isprintable()
