# SPDX-License-Identifier: Apache-2.0
"""Web pages of other sites do nothing through the browser of somebody who opens them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from services.common.metrics import GatewayMetrics
from services.gateway.app import make_app
from services.gateway.settings import GatewaySettings
from tests.integration.job_system import JobSystem


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Origin": "https://evil.example"}, (403, "OTHER_SITE")),
        ({"Origin": "https://[evil.example"}, (403, "OTHER_SITE")),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "null"}, (403, "OTHER_SITE")),
        (
            {"Host": "evil.example:8080", "Origin": "http://evil.example:8080"},
            (403, "UNKNOWN_HOST"),
        ),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.a.proxy"}, (400, None)),
    ],
)
def test_a_web_page_of_another_site_uploads_and_deletes_nothing(
    system: JobSystem, clip: Path, headers: dict[str, str], expected: tuple[int, str | None]
) -> None:
    with clip.open("rb") as video:  # without a consent it is refused in any case
        answers = [
            system.http.post("/v1/avatars", files={"video": video}, headers=headers),
            system.http.delete("/v1/avatars/anna", headers=headers),
            system.http.post("/v1/training-jobs/job-1:cancel", headers=headers),
        ]
    status, reason = expected
    if reason is not None:
        assert [(a.status_code, a.json()["reason"]) for a in answers] == [(status, reason)] * 3
    else:
        assert [a.json()["reason"] for a in answers] == [
            "CONSENT_MISSING",
            "AVATAR_NOT_FOUND",
            "JOB_NOT_FOUND",
        ]
    assert list((system.data_folder / "jobs").iterdir()) == []


def test_only_its_own_machine_asks_a_gateway_that_has_no_keys(
    system: JobSystem, tmp_path: Path
) -> None:
    async def asked_under(name: str, app: ASGIApp) -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{name}") as client:
            return await client.get("/v1/avatars")

    def asked(name: str, **settings: object) -> tuple[int, object]:
        own = GatewaySettings(redis_url=system.redis_url, data_folder=tmp_path, **settings)
        app = make_app(own, GatewayMetrics(CollectorRegistry()))
        answer = asyncio.run(asked_under(name, app))
        return answer.status_code, answer.json()

    for name in ("localhost:8080", "127.0.0.1:8080", "[::1]:8080"):
        assert asked(name) == (200, [])
    status, problem = asked("evil.example:8080")
    assert (status, problem["reason"]) == (403, "UNKNOWN_HOST")
    assert asked("avatars.example", host="0.0.0.0") == (200, [])
