# SPDX-License-Identifier: Apache-2.0
"""gRPC health v1, told to any number of watchers.

The servicer of ``grpc_health`` forgets all watchers of a name when one of them leaves, and waits
for the slowest of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

States = health_pb2.HealthCheckResponse


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Knows what serves; the RPCs' names and messages are those of the protocol."""

    def __init__(self) -> None:
        """Starts with nothing known."""
        self._states: dict[str, health_pb2.HealthCheckResponse.ServingStatus] = {}
        self._changed = asyncio.Event()
        self._is_final = False

    def tell(self, name: str, *, serving: bool | None) -> None:
        """Changes what is heard of one thing; nothing changes any more once all has stopped.

        Args:
            name: Of what is checked.
            serving: Whether it serves; None when there is no such thing any more.
        """
        if self._is_final:
            return
        if serving is None:
            self._states.pop(name, None)
        else:
            self._states[name] = States.SERVING if serving else States.NOT_SERVING
        self._wake()

    def stop(self) -> None:
        """Says for good that nothing serves any more."""
        self._is_final = True
        self._states = dict.fromkeys(self._states, States.NOT_SERVING)
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def Check(  # noqa: N802 - the name of the RPC
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """Answers how it is now; NOT_FOUND for what is not there."""
        state = self._states.get(request.service)
        if state is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"There is no '{request.service}'.")
        return health_pb2.HealthCheckResponse(status=state)

    async def Watch(  # noqa: N802 - the name of the RPC
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Answers how it is now, and whenever that has changed."""
        told = None
        while True:
            changed = self._changed  # before the state is read: no change after it is missed
            state = self._states.get(request.service, States.SERVICE_UNKNOWN)
            if state != told:
                yield health_pb2.HealthCheckResponse(status=state)
                told = state
            await changed.wait()
