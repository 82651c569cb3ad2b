# SPDX-License-Identifier: Apache-2.0
"""Every error type reaches its gRPC code and HTTP status, and comes back as itself."""

from __future__ import annotations

import logging

import grpc
import pytest

from services.common.errors import describe_error, error_from_status, error_from_words
from styleavatar_core import errors

CODES = grpc.StatusCode


@pytest.mark.parametrize(
    ("error", "code", "http_status"),
    [
        (errors.InvalidInputError("x"), CODES.INVALID_ARGUMENT, 400),
        (errors.FaceNotFoundError("x"), CODES.INVALID_ARGUMENT, 422),
        (errors.NotFoundError("x"), CODES.NOT_FOUND, 404),
        (errors.ConflictError("x"), CODES.FAILED_PRECONDITION, 409),
        (errors.AssetError("x"), CODES.FAILED_PRECONDITION, 503),
        (errors.EngineError("x"), CODES.INTERNAL, 500),
        (errors.EngineUnavailableError("x"), CODES.UNAVAILABLE, 503),
        (errors.RenderError("x"), CODES.INTERNAL, 500),
        (errors.WorkerLostError("x"), CODES.UNAVAILABLE, 503),
        (errors.OverloadedError("x"), CODES.RESOURCE_EXHAUSTED, 429),
        (errors.TrainingError("x"), CODES.INTERNAL, 500),
        (errors.StyleAvatarError("x"), CODES.INTERNAL, 500),
    ],
)
def test_each_type_has_its_statuses(
    error: errors.StyleAvatarError, code: grpc.StatusCode, http_status: int
) -> None:
    answer = describe_error(error)
    assert (answer.code, answer.http_status) == (code, http_status)
    assert (answer.message, answer.reason) == ("x", error.reason)


def test_overload_says_when_to_try_again() -> None:
    answer = describe_error(errors.OverloadedError("full", retry_delay_s=1.5))
    assert dict(answer.trailing_metadata())["styleavatar-retry-delay-s"] == "1.500"
    assert answer.http_headers() == {"Retry-After": "2"}
    assert describe_error(errors.NotFoundError("x")).http_headers() == {}


def test_an_unexpected_error_is_logged_and_tells_no_internals(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = describe_error(KeyError("secret"))
    assert answer.code is CODES.INTERNAL
    assert "secret" not in answer.message
    assert caplog.records[0].error_id in answer.message


def test_a_status_becomes_the_error_again() -> None:
    metadata = (("styleavatar-reason", "AVATAR_NOT_FOUND"),)
    error = error_from_status(CODES.NOT_FOUND, "no such avatar", metadata)
    assert type(error) is errors.NotFoundError
    assert (str(error), error.reason) == ("no such avatar", "AVATAR_NOT_FOUND")
    assert type(error_from_status(CODES.INVALID_ARGUMENT, "x", None)) is errors.InvalidInputError
    unreachable = error_from_status(CODES.UNAVAILABLE, "refused", None)
    assert type(unreachable) is errors.EngineUnavailableError
    for code in (CODES.INTERNAL, CODES.UNKNOWN, CODES.DEADLINE_EXCEEDED, CODES.CANCELLED):
        ended = error_from_status(code, "Received RST_STREAM with error code 2", None)
        assert (type(ended), ended.reason) == (errors.EngineUnavailableError, "STREAM_ENDED")
    broken = error_from_status(CODES.INTERNAL, "no picture", (("styleavatar-reason", "BROKEN"),))
    assert (type(broken), broken.reason) == (errors.RenderError, "BROKEN")
    assert type(error_from_status(CODES.DATA_LOSS, None, None)) is errors.EngineError


def test_a_refusal_that_is_passed_on_keeps_its_delay() -> None:
    answer = describe_error(errors.OverloadedError("full", retry_delay_s=7.25, reason="FULL"))
    passed_on = error_from_status(answer.code, answer.message, answer.trailing_metadata())
    assert describe_error(passed_on) == answer


@pytest.mark.parametrize("said", [None, "soon", "-1", "nan", "inf"])
def test_a_delay_that_is_none_becomes_the_usual_one(said: str | None) -> None:
    metadata = (("styleavatar-retry-delay-s", said),) if said else ()
    error = error_from_status(CODES.RESOURCE_EXHAUSTED, "full", metadata)
    assert isinstance(error, errors.OverloadedError)
    assert error.retry_delay_s == errors.OverloadedError("x").retry_delay_s


def test_a_workers_words_become_the_error_again() -> None:
    error = error_from_words("AssetError", "BUNDLE_TAMPERED", "damaged")
    assert type(error) is errors.AssetError
    assert error.reason == "BUNDLE_TAMPERED"
    assert type(error_from_words("KeyError", "X", "y")) is errors.RenderError
