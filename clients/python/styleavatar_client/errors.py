# SPDX-License-Identifier: Apache-2.0
"""What a caller of the services can meet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

REASON_KEY = "styleavatar-reason"
RETRY_DELAY_KEY = "styleavatar-retry-delay-s"


class ClientError(Exception):
    """A service refused, failed, or could not be reached.

    Attributes:
        code: Name of the status, e.g. ``NOT_FOUND``.
        reason: Stable UPPER_SNAKE word for programs; empty when the service gave none.
        retry_delay_s: When another attempt makes sense, if the service said so.
    """

    def __init__(
        self, message: str, *, code: str, reason: str = "", retry_delay_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.retry_delay_s = retry_delay_s


def is_lost(error: grpc.RpcError) -> bool:
    """Says whether a node, or the way to it, is gone: another may do better.

    A balancer resets the streams of a node that died, which is INTERNAL or UNKNOWN; what a service
    itself says always has a reason.
    """
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return True
    has_reason = REASON_KEY in dict(error.trailing_metadata() or ())
    return not has_reason and error.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


def retry_delay_s(error: grpc.RpcError) -> float | None:
    """Returns when another attempt makes sense, if the service said so."""
    delay = dict(error.trailing_metadata() or ()).get(RETRY_DELAY_KEY)
    return float(delay) if delay else None


@contextmanager
def grpc_errors(address: str) -> Iterator[None]:
    """Turns gRPC errors into ``ClientError``.

    Args:
        address: Address of the service, for the message when nobody answers there.
    """
    try:
        yield
    except grpc.RpcError as error:
        message = error.details() or error.code().name
        reason = str(dict(error.trailing_metadata() or ()).get(REASON_KEY, ""))
        if error.code() is grpc.StatusCode.UNAVAILABLE and not reason:
            message = (
                f"No service answers at {address}. Start one with `styleavatar serve`, or say "
                "where it is (`styleavatar drive --tracking`)."
            )
        raise ClientError(
            message,
            code=error.code().name,
            reason=reason,
            retry_delay_s=retry_delay_s(error),
        ) from error
