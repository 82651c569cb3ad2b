# SPDX-License-Identifier: Apache-2.0
"""What a caller of the services can meet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc


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


@contextmanager
def grpc_errors(address: str) -> Iterator[None]:
    """Turns gRPC errors into ``ClientError``.

    Args:
        address: Address of the service, for the message when nobody answers there.
    """
    try:
        yield
    except grpc.RpcError as error:
        metadata = dict(error.trailing_metadata() or ())
        message = error.details() or error.code().name
        reason = str(metadata.get("styleavatar-reason", ""))
        if error.code() is grpc.StatusCode.UNAVAILABLE and not reason:
            message = (
                f"No service answers at {address}. Start one with `styleavatar serve`, or say "
                "where it is."
            )
        delay = metadata.get("styleavatar-retry-delay-s")
        raise ClientError(
            message,
            code=error.code().name,
            reason=reason,
            retry_delay_s=float(delay) if delay else None,
        ) from error
