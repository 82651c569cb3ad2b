# SPDX-License-Identifier: Apache-2.0
"""Uploads beside each other: so many at once, none that keeps its place or others waiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from services.common.metrics import GatewayMetrics
from services.gateway.app import make_app
from services.gateway.settings import GatewaySettings
from services.gateway.upload import UploadReader

HEADERS = {"content-type": "multipart/form-data; boundary=xx"}
BEGINNING = b'--xx\r\nContent-Disposition: form-data; name="video"; filename="a.mp4"\r\n\r\n'


class Upload:
    """The body of an upload: a first piece, then nothing until it is let go; it breaks off."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()  # its first piece has been taken
        self.go_on = asyncio.Event()

    async def pieces(self) -> AsyncIterator[bytes]:
        yield BEGINNING
        self.begun.set()
        await self.go_on.wait()


async def send(client: httpx.AsyncClient, upload: Upload) -> httpx.Response:
    return await client.post("/v1/avatars", content=upload.pieces(), headers=HEADERS)


def run(
    folder: Path,
    scenario: Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]],
    **settings: object,
) -> None:
    """Plays a scenario with a gateway in this process."""
    own = GatewaySettings(redis_url="redis://127.0.0.1:1", data_folder=folder, **settings)
    app = make_app(own, GatewayMetrics(CollectorRegistry()))

    async def play() -> None:
        transport = httpx.ASGITransport(app)
        async with (
            asyncio.timeout(60),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            await scenario(client)

    asyncio.run(play())
    assert list((folder / "jobs").iterdir()) == []


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["reason"]


def test_more_uploads_than_may_be_under_way_are_refused_for_now(tmp_path: Path) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        uploads = [Upload(), Upload()]
        sent = [asyncio.create_task(send(client, upload)) for upload in uploads]
        for upload in uploads:
            await upload.begun.wait()
        answer = await send(client, Upload())
        assert refused(answer) == (429, "TOO_MANY_UPLOADS")
        assert int(answer.headers["retry-after"]) > 0
        assert "at once (2)" in answer.json()["detail"]
        uploads[0].go_on.set()  # whose place is free then
        assert refused(await sent[0]) == (400, "UPLOAD_INCOMPLETE")
        following = Upload()
        following.go_on.set()
        assert refused(await send(client, following)) == (400, "UPLOAD_INCOMPLETE")
        uploads[1].go_on.set()
        await sent[1]

    run(tmp_path, scenario, upload_count_limit=2)


def test_an_upload_of_which_nothing_comes_gives_its_place_back(tmp_path: Path) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        for _ in range(2):
            answer = await send(client, Upload())
            assert refused(answer) == (400, "UPLOAD_INCOMPLETE")
            assert "for 0.05 s" in answer.json()["detail"]

    run(tmp_path, scenario, upload_count_limit=1, upload_idle_timeout_s=0.05)


def test_others_are_answered_while_the_disk_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, written = threading.Event(), threading.Event()
    feed = UploadReader.feed

    def feed_slowly(reader: UploadReader, data: bytes) -> None:
        writing.set()
        assert written.wait(30), "nobody else was answered"
        feed(reader, data)

    monkeypatch.setattr(UploadReader, "feed", feed_slowly)

    async def scenario(client: httpx.AsyncClient) -> None:
        upload = Upload()
        upload.go_on.set()
        sent = asyncio.create_task(send(client, upload))
        assert await asyncio.to_thread(writing.wait, 30)
        assert (await client.get("/healthz")).status_code == 200
        written.set()
        assert refused(await sent) == (400, "UPLOAD_INCOMPLETE")

    run(tmp_path, scenario)
