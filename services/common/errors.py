# SPDX-License-Identifier: Apache-2.0
"""Where an error of ``styleavatar_core.errors`` becomes a gRPC status and an HTTP answer."""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import grpc

from styleavatar_core.errors import (
    AssetError,
    AuthenticationError,
    ConflictError,
    EngineError,
    EngineUnavailableError,
    FaceNotFoundError,
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    RenderError,
    StyleAvatarError,
    TrainingError,
    WorkerLostError,
)

logger = logging.getLogger(__name__)

REASON_KEY = "styleavatar-reason"
RETRY_DELAY_KEY = "styleavatar-retry-delay-s"

# With these, and without a reason of ours, a call ended that the other service did not end: its
# node died behind a balancer, which resets the stream, is frozen, or was stopped amid the call; or
# it ended while it was being written to, and gRPC's client for asyncio forgot how.
_CUT_OFF = (
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)

# From the most special type to the most general: the first that fits answers.
_STATUS: tuple[tuple[type[StyleAvatarError], grpc.StatusCode, int], ...] = (
    (FaceNotFoundError, grpc.StatusCode.INVALID_ARGUMENT, 422),
    (InvalidInputError, grpc.StatusCode.INVALID_ARGUMENT, 400),
    (NotFoundError, grpc.StatusCode.NOT_FOUND, 404),
    (AuthenticationError, grpc.StatusCode.UNAUTHENTICATED, 401),
    (ConflictError, grpc.StatusCode.FAILED_PRECONDITION, 409),
    (AssetError, grpc.StatusCode.FAILED_PRECONDITION, 503),
    (EngineUnavailableError, grpc.StatusCode.UNAVAILABLE, 503),
    (WorkerLostError, grpc.StatusCode.UNAVAILABLE, 503),
    (RenderError, grpc.StatusCode.INTERNAL, 500),
    (EngineError, grpc.StatusCode.INTERNAL, 500),
    (OverloadedError, grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
    (TrainingError, grpc.StatusCode.INTERNAL, 500),
)


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """What a caller is told about an error.

    Attributes:
        code: gRPC status code.
        http_status: HTTP status code.
        reason: Stable UPPER_SNAKE word for programs.
        message: One sentence for people, without internals.
        retry_delay_s: When another attempt makes sense, if it does.
    """

    code: grpc.StatusCode
    http_status: int
    reason: str
    message: str
    retry_delay_s: float | None = None

    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        """Returns the metadata that travel with the gRPC status."""
        metadata = [(REASON_KEY, self.reason)]
        if self.retry_delay_s is not None:
            metadata.append((RETRY_DELAY_KEY, f"{self.retry_delay_s:.3f}"))
        return tuple(metadata)

    def http_headers(self) -> dict[str, str]:
        """Returns the headers that travel with the HTTP status."""
        if self.retry_delay_s is None:
            return {}
        return {"Retry-After": str(max(1, math.ceil(self.retry_delay_s)))}


def describe_error(error: Exception) -> ErrorAnswer:
    """Says what a caller is told; an error that nobody raised on purpose is logged under an id.

    Args:
        error: What ended the call.

    Returns:
        Codes, reason and message.
    """
    if isinstance(error, StyleAvatarError):
        retry_delay_s = error.retry_delay_s if isinstance(error, OverloadedError) else None
        if isinstance(error, WorkerLostError):
            retry_delay_s = 1.0
        for kind, code, http_status in _STATUS:
            if isinstance(error, kind):
                return ErrorAnswer(code, http_status, error.reason, str(error), retry_delay_s)
        return ErrorAnswer(grpc.StatusCode.INTERNAL, 500, error.reason, str(error))
    error_id = uuid.uuid4().hex[:12]
    logger.error("unexpected error", exc_info=error, extra={"error_id": error_id})
    message = f"Something went wrong in the service; its log has the details under {error_id}."
    return ErrorAnswer(grpc.StatusCode.INTERNAL, 500, "INTERNAL", message)


def error_from_words(kind: str, reason: str, message: str) -> StyleAvatarError:
    """Builds the error that a worker process reported.

    Args:
        kind: Name of its type.
        reason: Its reason.
        message: Its message.

    Returns:
        An error of that type; ``RenderError`` for a type that has no answer of its own.
    """
    for error_type, _, _ in _STATUS:
        if error_type.__name__ == kind:
            return error_type(message, reason=reason)
    return RenderError(message, reason=reason)


def error_from_status(
    code: grpc.StatusCode, message: str | None, metadata: Iterable[tuple[str, str | bytes]] | None
) -> StyleAvatarError:
    """Turns the status of another service back into the error that it stands for.

    Args:
        code: Its status code.
        message: Its message.
        metadata: Its trailing metadata.

    Returns:
        An error of the type that belongs to the status.
    """
    told = dict(metadata or ())
    reason = told.get(REASON_KEY)
    if reason is None and code is grpc.StatusCode.UNAVAILABLE:
        return EngineUnavailableError(f"Another service cannot be reached: {message}")
    if reason is None and code in _CUT_OFF:
        return EngineUnavailableError(
            f"Another service cut the call off or did not answer in time: {message}",
            reason="STREAM_ENDED",
        )
    for error_type, known_code, _ in _STATUS[1:]:  # without the special case of no face
        if known_code is code:
            error = error_type(message or code.name, reason=str(reason) if reason else None)
            if isinstance(error, OverloadedError):
                error.retry_delay_s = _retry_delay_s(told, default_s=error.retry_delay_s)
            return error
    return EngineError(f"Another service answered {code.name}: {message}")


def _retry_delay_s(told: Mapping[str, str | bytes], default_s: float) -> float:
    """Reads when another service wants to be asked again; the default where it does not say."""
    try:
        delay_s = float(told[RETRY_DELAY_KEY])
    except (KeyError, ValueError):
        return default_s
    return delay_s if 0 <= delay_s < math.inf else default_s
