# SPDX-License-Identifier: Apache-2.0
"""A rendering service with a real worker process, whose pictures are marked with their avatar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import pytest
from styleavatar.v1 import rendering_service_pb2_grpc

from tests.fakes.bundle import write_fake_bundle
from tests.fakes.renderer import MEMORY_BYTES
from tests.integration.service_process import ServiceProcess
from tests.integration.stream_helpers import (
    face,
    render_config,
    render_requests,
)

ANNA, BEN = 10, 20
STAGES = ("queue", "conditioning", "network", "encoding", "total")
Stub = rendering_service_pb2_grpc.RenderingServiceStub


def write_avatars(data: Path) -> Path:
    """Writes avatars, some with a fault each; returns their folder."""
    folder = data / "avatars"
    write_fake_bundle(folder / "anna", ANNA)
    write_fake_bundle(folder / "ben", BEN)
    write_fake_bundle(folder / "slow", 30, {"render_s": 0.05})
    write_fake_bundle(folder / "paired", 70, {"render_s": 0.01, "batch_limit": 4})
    write_fake_bundle(folder / "failing", 40, {"fail_at": 3})
    write_fake_bundle(folder / "greedy", 40, {"memory_fails_at": 3})
    write_fake_bundle(folder / "deadly", 50, {"die_at": 2})
    write_fake_bundle(folder / "damaged", 60, {"refuse_to_load": True})
    return folder


@contextmanager
def serving(avatars: Path) -> Iterator[ServiceProcess]:
    """Runs a service that has room for two avatars and four streams, and must end well."""
    renderer = "tests.fakes.renderer:FakeRenderer"
    room = {"engine_bytes_per_worker": 2 * MEMORY_BYTES, "stream_limit": 4, "stand_by": False}
    with ServiceProcess("rendering", avatars.parent, renderer=renderer, **room) as process:
        yield process.wait_until_serving()
        assert process.stop() == 0
        assert "Traceback" not in process.log


def answers(stub: Stub, avatar_id: str, count: int, **config: object) -> list:
    requests = render_requests(render_config(avatar_id, **config), map(face, range(count)))
    return list(stub.StreamFrames(requests, timeout=60))


def refusal(call: Iterator) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    return caught.value


def reason(error: grpc.RpcError) -> str:
    return dict(error.trailing_metadata())["styleavatar-reason"]


def measured(service: ServiceProcess) -> dict[str, float]:
    """The metrics of the service, by name without their common prefix."""
    text = httpx.get(f"http://127.0.0.1:{service.metrics_port}/metrics").text
    values = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name.removeprefix("styleavatar_rendering_"): float(value) for name, value in values}
