# SPDX-License-Identifier: Apache-2.0
"""The gateway over real HTTP: what it refuses, and how it says so. No trainer runs here."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.common.storage import AvatarStore
from services.gateway.intake import TEXT_FIELDS
from tests.fakes.bundle import write_fake_bundle
from tests.integration.job_system import CONSENT, JobSystem, wait_for, write_audio, write_clip


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobSystem]:
    system = JobSystem(tmp_path_factory.mktemp("data"))
    try:
        system.start_redis()
        system.start_gateway(upload_limit_mb=1, minutes_limit=10)
        yield system
    finally:
        system.stop()


def test_health_readiness_and_metrics(system: JobSystem) -> None:
    assert system.http.get("/healthz").json() == {"status": "ok"}
    assert system.http.get("/readyz").status_code == 200
    assert "styleavatar_gateway_requests_total" in system.http.get("/metrics").text


def test_the_page_is_there_and_says_what_runs(system: JobSystem) -> None:
    assert "synthetic" in system.http.get("/").text
    parts = {part["name"]: part["is_healthy"] for part in system.http.get("/v1/system").json()}
    expected = {"gateway": True, "redis": True, "trainer": False}
    assert expected | {"tracking": False, "rendering": False} == parts


@pytest.mark.parametrize("statement", ["", "   ", "yes"])
def test_no_consent_no_avatar(system: JobSystem, clip: Path, statement: str) -> None:
    answer = system.upload(clip, consent=statement)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["reason"] == "CONSENT_MISSING"
    assert "consent" in answer.json()["detail"]


def refuse(system: JobSystem, video: Path, reason: str, status: int = 400) -> str:
    answer = system.upload(video)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    return answer.json()["detail"]


def test_not_a_video(system: JobSystem, tmp_path: Path) -> None:
    path = tmp_path / "notes.mp4"
    path.write_text("these are notes, not a video\n" * 100)
    assert "notes.mp4" in refuse(system, path, "NOT_A_VIDEO")


def test_an_audio_file(system: JobSystem, tmp_path: Path) -> None:
    assert "song.m4a" in refuse(system, write_audio(tmp_path / "song.m4a"), "NO_VIDEO_STREAM")


def test_two_seconds_of_video(system: JobSystem, tmp_path: Path) -> None:
    video = write_clip(tmp_path / "short.mp4", seconds=2)
    assert "2.0 s" in refuse(system, video, "VIDEO_TOO_SHORT")


def test_fewer_frames_than_a_training_needs(system: JobSystem, tmp_path: Path) -> None:
    video = write_clip(tmp_path / "few.mp4", seconds=5.5)
    assert "55 frames" in refuse(system, video, "VIDEO_TOO_SHORT")


def test_a_truncated_file(system: JobSystem, clip: Path, tmp_path: Path) -> None:
    data = clip.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: len(data) // 2])
    assert "cut" in refuse(system, path, "NOT_A_VIDEO")


def test_a_file_above_the_limit(system: JobSystem, tmp_path: Path) -> None:
    path = tmp_path / "large.mp4"
    path.write_bytes(bytes(1_500_000))
    assert "1 MB" in refuse(system, path, "UPLOAD_TOO_LARGE", 413)


@pytest.mark.parametrize(
    ("fields", "word"),
    [({"minutes": "-1"}, "minutes"), ({"minutes": "soon"}, "minutes"),
     ({"minutes": "11"}, "up to 10"), ({"preset": "huge"}, "nano")],
)  # fmt: skip
def test_settings_that_make_no_sense(
    system: JobSystem, clip: Path, fields: dict[str, str], word: str
) -> None:
    answer = system.upload(clip, **fields)
    assert answer.status_code == 400
    assert word in answer.json()["detail"]


def test_a_form_without_a_video(system: JobSystem) -> None:
    answer = system.http.post("/v1/avatars", files={"consent": (None, CONSENT)})
    assert (answer.status_code, answer.json()["reason"]) == (400, "VIDEO_MISSING")
    assert system.http.post("/v1/avatars", data={"consent": CONSENT}).status_code == 415


def test_an_upload_that_breaks_off(system: JobSystem) -> None:
    headers = {"content-type": "multipart/form-data; boundary=xx"}
    part = b'--xx\r\nContent-Disposition: form-data; name="video"; filename="a.mp4"\r\n\r\nhalf'
    answer = system.http.post("/v1/avatars", content=part, headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (400, "UPLOAD_INCOMPLETE")


def test_a_caller_who_hangs_up_in_the_middle_of_an_upload(system: JobSystem) -> None:
    def refused() -> float:
        text = system.http.get("/metrics").text
        values = re.findall(r'refused_uploads_total{reason="UPLOAD_INCOMPLETE"} (.*)', text)
        return sum(map(float, values))

    before = refused()
    with socket.create_connection(("127.0.0.1", system.gateway_port)) as connection:
        connection.sendall(
            b"POST /v1/avatars HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
            b"Content-Type: multipart/form-data; boundary=xx\r\n\r\n--xx\r\n"
        )
    wait_for(lambda: refused() == before + 1)
    assert list((system.data_folder / "jobs").iterdir()) == []
    assert system.stack_traces() == ""


def test_refused_uploads_leave_nothing_behind(system: JobSystem, clip: Path) -> None:
    system.upload(clip, consent="")
    assert list((system.data_folder / "jobs").iterdir()) == []
    assert system.http.get("/v1/avatars").json() == []
    assert system.stack_traces() == ""


@pytest.mark.parametrize(
    "path",
    ["/v1/avatars/none", "/v1/avatars/none/bundle", "/v1/avatars/..%2f..%2fetc/preview.jpg",
     "/v1/training-jobs/none", "/v1/training-jobs/none/events", "/nowhere"],
)  # fmt: skip
def test_what_is_not_there(system: JobSystem, path: str) -> None:
    answer = system.http.get(path)
    assert answer.status_code == 404
    assert answer.json()["detail"]


def test_an_imported_avatar_is_served_and_deleted(system: JobSystem, tmp_path: Path) -> None:
    store = AvatarStore(system.data_folder / "avatars")
    store.publish(write_fake_bundle(tmp_path / "bundle", mark=1), "imported")
    view = system.http.get("/v1/avatars/imported").json()
    assert (view["state"], view["is_synthetic"]) == ("READY", True)
    assert view["consent"]["given_by"] == "the tests"
    for name in ("bundle", "preview.jpg"):
        answer = system.http.get(f"/v1/avatars/imported/{name}")
        assert (answer.status_code, answer.headers["x-synthetic"]) == (200, "true")
    assert system.http.delete("/v1/avatars/imported").status_code == 204
    assert store.list() == []
    assert system.http.get("/v1/avatars/imported").status_code == 404


@pytest.mark.parametrize(
    ("span", "status", "length"),
    [
        ("bytes=0-", 206, None),
        ("bytes=0-3", 206, 4),
        ("bytes=99999999999-", 416, None),
        ("bytes=3-1", 400, None),
        ("crumbs=1-2", 400, None),
    ],
)
def test_no_packed_bundle_stays_behind(
    system: JobSystem,
    tmp_path: Path,
    span: str,
    status: int,
    length: int | None,
) -> None:
    store = AvatarStore(system.data_folder / "avatars")
    store.publish(write_fake_bundle(tmp_path / "bundle", mark=1), "packed")
    try:
        answer = system.http.get("/v1/avatars/packed/bundle", headers={"Range": span})
        assert answer.status_code == status
        if status == 206:
            assert answer.content.startswith(b"PK\x03\x04")
            assert length in (None, len(answer.content))
        wait_for(lambda: not list(store.root.glob(".*")), timeout_s=10)
    finally:
        store.delete("packed")


def test_nothing_stays_behind_of_a_bundle_that_cannot_be_packed(
    system: JobSystem, tmp_path: Path
) -> None:
    store = AvatarStore(system.data_folder / "avatars")
    store.publish(write_fake_bundle(tmp_path / "bundle", mark=1), "damaged")
    try:
        (store.path("damaged") / "avatar.json").write_text("{")
        answer = system.http.get("/v1/avatars/damaged/bundle")
        assert answer.status_code == 503
        assert "damaged" in answer.json()["detail"]
        wait_for(lambda: not list(store.root.glob(".*")), timeout_s=10)
    finally:
        store.delete("damaged")


def test_sigterm_ends_it_cleanly(tmp_path: Path) -> None:
    system = JobSystem(tmp_path)
    try:
        system.start_redis()
        gateway = system.start_gateway()
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(30) == 0
        assert system.stack_traces() == ""
    finally:
        system.stop()


def test_the_description_names_the_form_the_key_and_the_problems(system: JobSystem) -> None:
    described = system.http.get("/openapi.json").json()
    upload = described["paths"]["/v1/avatars"]["post"]
    form = upload["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["video", "consent"]
    assert set(form["properties"]) == {"video", *TEXT_FIELDS}
    assert upload["security"] == [{"HTTPBearer": []}]
    assert set(upload["responses"]) == {"202", "default"}
    assert "application/problem+json" in upload["responses"]["default"]["content"]
    # Its page asks nobody else for anything.
    page = system.http.get("/docs").text
    assert re.findall(r"https?://", page) == []
    assert "/static-offline-docs/swagger-ui-bundle.js" in page
    assert system.http.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200
