# SPDX-License-Identifier: Apache-2.0
"""A gateway in this process: what is away, deleted or odd while it is asked; without a trainer."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from services.common.metrics import GatewayMetrics
from services.common.storage import AvatarStore
from services.gateway.app import make_app
from services.gateway.settings import GatewaySettings
from styleavatar_core.avatar.bundle_files import check_digest
from tests.fakes.bundle import write_fake_bundle
from tests.integration.job_system import JobSystem


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobSystem]:
    system = JobSystem(tmp_path_factory.mktemp("data"))
    try:
        system.start_redis()
        yield system
    finally:
        system.stop()


def ask(app: ASGIApp, path: str) -> httpx.Response:
    """Asks a gateway in this process."""

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path)

    return asyncio.run(get())


def test_a_queue_that_does_not_answer_is_away(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}?socket_timeout=0.1"
        settings = GatewaySettings(redis_url=url, data_folder=tmp_path)
        answer = ask(make_app(settings, GatewayMetrics(CollectorRegistry())), "/v1/avatars")
    assert (answer.status_code, answer.json()["reason"]) == (503, "QUEUE_AWAY")


def test_an_avatar_that_is_deleted_while_all_are_listed_is_left_out(
    redis: JobSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = GatewaySettings(redis_url=redis.redis_url, data_folder=tmp_path)
    app = make_app(settings, GatewayMetrics(CollectorRegistry()))
    monkeypatch.setattr(app.state.parts.store, "list", lambda: ["gone"])
    answer = ask(app, "/v1/avatars")
    assert (answer.status_code, answer.json()) == (200, [])


def test_an_avatar_that_is_deleted_while_it_is_looked_at_is_not_found(
    redis: JobSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = GatewaySettings(redis_url=redis.redis_url, data_folder=tmp_path)
    app = make_app(settings, GatewayMetrics(CollectorRegistry()))
    write_fake_bundle(tmp_path / "avatars" / "anna", 1)
    find = AvatarStore.path

    def find_and_delete(store: AvatarStore, avatar_id: str) -> Path:
        path = find(store, avatar_id)
        store.delete(avatar_id)
        return path

    monkeypatch.setattr(AvatarStore, "path", find_and_delete)
    answer = ask(app, "/v1/avatars/anna")
    assert (answer.status_code, answer.json()["reason"]) == (404, "AVATAR_NOT_FOUND")


def test_avatars_are_listed_though_one_says_no_time_zone(redis: JobSystem, tmp_path: Path) -> None:
    settings = GatewaySettings(redis_url=redis.redis_url, data_folder=tmp_path)
    app = make_app(settings, GatewayMetrics(CollectorRegistry()))
    for name, time in (("anna", "2026-01-01T12:00:00"), ("bob", "2026-03-01T12:00:00Z")):
        path = write_fake_bundle(tmp_path / "avatars" / name, 1) / "avatar.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"created_time": time}))
    answer = ask(app, "/v1/avatars")
    assert answer.status_code == 200
    assert [view["avatar_id"] for view in answer.json()] == ["bob", "anna"]


def test_what_a_gateway_was_deleting_when_it_ended_goes_when_one_starts(tmp_path: Path) -> None:
    for kind in ("jobs", "avatars"):
        (tmp_path / kind / ".trash-1").mkdir(parents=True)
    settings = GatewaySettings(redis_url="redis://127.0.0.1:1", data_folder=tmp_path)
    make_app(settings, GatewayMetrics(CollectorRegistry()))
    assert [list((tmp_path / kind).iterdir()) for kind in ("jobs", "avatars")] == [[], []]


def test_a_bundle_that_is_deleted_while_it_is_packed_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = AvatarStore(tmp_path / "avatars")
    store.publish(write_fake_bundle(tmp_path / "bundle", mark=1), "packed")

    def check_and_delete(*arguments: Any) -> None:
        check_digest(*arguments)
        store.delete("packed")  # when its first file has been read

    monkeypatch.setattr("styleavatar_core.avatar.bundle.check_digest", check_and_delete)
    settings = GatewaySettings(redis_url="redis://127.0.0.1:1", data_folder=tmp_path)
    app = make_app(settings, GatewayMetrics(CollectorRegistry()))
    answer = ask(app, "/v1/avatars/packed/bundle")
    assert (answer.status_code, answer.json()["reason"]) == (404, "AVATAR_NOT_FOUND")
