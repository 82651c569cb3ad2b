# SPDX-License-Identifier: Apache-2.0
"""Downloads beside each other: so many at once, none that keeps its place unread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.types import Message, Receive, Scope, Send

from services.common.metrics import GatewayMetrics
from services.common.storage import AvatarStore
from services.gateway import bundle_response
from services.gateway.app import make_app
from services.gateway.bundle_response import BundleResponse
from services.gateway.places import Places
from services.gateway.settings import GatewaySettings
from tests.fakes.bundle import write_fake_bundle

PATH = "/v1/avatars/anna/bundle"
App = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]


class Reader:
    """Fetches anna's bundle and reads nothing of it before it is let go."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()  # the zip is packed, and its first piece is to be sent
        self.go_on = asyncio.Event()

    async def fetch(self, app: App) -> None:
        headers = [(b"host", b"localhost")]
        scope = {"type": "http", "method": "GET", "path": PATH, "headers": headers}
        await app(scope | {"query_string": b"", "root_path": ""}, _nothing, self._read)

    async def _read(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            self.begun.set()
            await self.go_on.wait()


async def _nothing() -> Message:
    return await asyncio.get_running_loop().create_future()


@pytest.fixture
def store(tmp_path: Path) -> AvatarStore:
    write_fake_bundle(tmp_path / "avatars" / "anna", 1)
    return AvatarStore(tmp_path / "avatars")


def test_more_downloads_than_may_be_under_way_are_refused_for_now(
    tmp_path: Path, store: AvatarStore
) -> None:
    settings = GatewaySettings(
        redis_url="redis://127.0.0.1:1", data_folder=tmp_path, download_count_limit=2
    )
    app = make_app(settings, GatewayMetrics(CollectorRegistry()))

    async def scenario() -> None:
        transport = httpx.ASGITransport(app)
        async with (
            asyncio.timeout(60),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            readers = [Reader(), Reader()]
            fetching = [asyncio.create_task(reader.fetch(app)) for reader in readers]
            for reader in readers:
                await reader.begun.wait()
            answer = await client.get(PATH)
            assert (answer.status_code, answer.json()["reason"]) == (429, "TOO_MANY_DOWNLOADS")
            assert int(answer.headers["retry-after"]) > 0
            assert "at once (2)" in answer.json()["detail"]
            readers[0].go_on.set()  # whose place is free then
            await fetching[0]
            assert (await client.get(PATH)).status_code == 200
            readers[1].go_on.set()
            await fetching[1]

    asyncio.run(scenario())
    assert not list(store.root.glob(".*"))


def test_a_download_of_which_nothing_is_read_gives_its_place_back(
    store: AvatarStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_response, "IDLE_TIMEOUT_S", 0.05)
    places = Places(1, taken_by="as many avatars are being fetched", reason="TOO_MANY_DOWNLOADS")

    async def scenario() -> None:
        async with asyncio.timeout(60):
            for _ in range(2):
                answer = BundleResponse(store, store.path("anna"), {}, places)
                await Reader().fetch(answer)

    asyncio.run(scenario())
    assert not list(store.root.glob(".*"))
