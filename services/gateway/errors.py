# SPDX-License-Identifier: Apache-2.0
"""The one place where an error becomes an HTTP answer: problem JSON (RFC 9457)."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException

from services.common.errors import describe_error
from services.common.logging import request_id

logger = logging.getLogger(__name__)

# More exact than the status of the error's type.
_STATUS_BY_REASON = {
    "UPLOAD_TOO_LARGE": 413,
    "NOT_MULTIPART": 415,
    "OTHER_SITE": 403,
    "UNKNOWN_HOST": 403,
    "NOT_WRITTEN": 507,
}


def install_error_handlers(app: FastAPI) -> None:
    """Makes every error of a route answer with one sentence and never with a stack trace."""
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(RedisError, _on_redis_failure)
    app.add_exception_handler(Exception, _on_error)


def problem(
    status: int, reason: str, message: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """Returns an error as a problem document.

    Args:
        status: HTTP status code.
        reason: Stable UPPER_SNAKE word for programs.
        message: One sentence for people.
        headers: Further headers.
    """
    body = {
        "type": "about:blank",
        "title": reason.replace("_", " ").capitalize(),
        "status": status,
        "reason": reason,
        "detail": message,
        "request_id": request_id.get(),
    }
    return JSONResponse(
        body, status_code=status, headers=headers, media_type="application/problem+json"
    )


def answer_error(error: Exception) -> JSONResponse:
    """Returns the answer to an error that a route raised."""
    answer = describe_error(error)
    status = _STATUS_BY_REASON.get(answer.reason, answer.http_status)
    return problem(status, answer.reason, answer.message, answer.http_headers())


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    return answer_error(error)


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    reason = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}.get(error.status_code, "HTTP_ERROR")
    message = f"{request.method} {request.url.path}: {error.detail}"
    return problem(error.status_code, reason, message)


async def _on_invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:])
    return problem(400, "INVALID_INPUT", f"{field}: {first['msg']}")


async def _on_redis_failure(request: Request, error: Exception) -> JSONResponse:
    logger.error("Redis fails", extra={"error": str(error), "path": request.url.path})
    message = "the job queue does not answer, or takes no jobs just now; try again"
    return problem(503, "QUEUE_AWAY", message, {"Retry-After": "5"})
