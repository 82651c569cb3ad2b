# SPDX-License-Identifier: Apache-2.0
"""Errors of our handlers as gRPC statuses, and how long their answers wait, for all servicers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from services.common.errors import describe_error
from services.common.silence import read_in_time
from styleavatar_core.errors import InvalidInputError

# A caller whose machine is busy takes a while to send what it has opened the stream for.
FIRST_MESSAGE_WAIT_S = 1.0


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns errors of our handlers into statuses, and lets go of callers who do not read.

    No servicer does either by hand.
    """

    def __init__(self, idle_timeout_s: float) -> None:
        """Notes the limit.

        Args:
            idle_timeout_s: A stream whose caller does not take an answer for so long is ended.
        """
        self._idle_timeout_s = idle_timeout_s

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """Wraps unary and bidirectional handlers; others pass."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        coders = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(
                _guarded_stream(handler.stream_stream, self._idle_timeout_s), **coders
            )
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                _guarded_unary(handler.unary_unary), **coders
            )
        return handler


def _guarded_unary(behavior: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def guarded(request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            return await behavior(request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await _abort(context, error)

    return guarded


def _guarded_stream(
    behavior: Callable[..., AsyncGenerator[Any, None]], idle_timeout_s: float
) -> Callable[..., Awaitable[None]]:
    async def guarded(requests: AsyncIterator[Any], context: Any) -> None:
        incoming = _Incoming(requests)
        try:
            async with contextlib.aclosing(behavior(incoming.messages(), context)) as responses:
                async for response in responses:
                    async with read_in_time(idle_timeout_s):
                        await context.write(response)
        except grpc.aio.BaseError:  # the call has ended: gRPC's own affair
            raise
        except Exception as error:
            await incoming.await_first()
            await _abort(context, error)

    return guarded


class _Incoming:
    """The messages of a caller's stream.

    Args:
        requests: What gRPC gives.
    """

    def __init__(self, requests: AsyncIterator[Any]) -> None:
        self._requests = requests
        self._is_begun = False

    async def messages(self) -> AsyncIterator[Any]:
        """Yields them; what cannot be read is the caller's error."""
        self._is_begun = True
        try:
            async for request in self._requests:
                yield request
        except DecodeError as error:
            raise InvalidInputError(
                "A message of the stream is not of the type that this RPC takes.",
                reason="UNREADABLE_MESSAGE",
            ) from error

    async def await_first(self) -> None:
        """Waits a moment for the first message of a stream that was refused without reading it.

        gRPC's client for asyncio forgets a status that comes before it has written: it would tell
        of an internal error.
        """
        if self._is_begun:
            return
        with contextlib.suppress(TimeoutError, StopAsyncIteration, DecodeError):
            async with asyncio.timeout(FIRST_MESSAGE_WAIT_S):
                await anext(aiter(self._requests))


async def _abort(context: grpc.aio.ServicerContext, error: Exception) -> None:
    answer = describe_error(error)
    await context.abort(answer.code, answer.message, answer.trailing_metadata())
