# SPDX-License-Identifier: Apache-2.0
"""The gateway's client against a small real HTTP server that answers as written here."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from styleavatar_client.errors import ClientError
from styleavatar_client.rest import GatewayClient

NAME = "me\u2028\x85.mp4"  # has ends of lines, but not of those in a stream of events
RUNNING = {"state": "RUNNING", "video_name": NAME}
DONE = {"state": "SUCCEEDED", "video_name": NAME}


def event(number: int, name: str, data: dict) -> bytes:
    text = json.dumps(data, ensure_ascii=False)  # as the gateway has it
    return f"id: {number}\r\nevent: {name}\r\ndata: {text}\r\n\r\n".encode()


class Gateway(BaseHTTPRequestHandler):
    """Breaks off the first event stream; goes on from ``Last-Event-ID`` in the second."""

    def do_GET(self) -> None:
        after = self.headers.get("Last-Event-ID")
        if self.path.endswith("/job-quiet/events"):
            self.be_quiet()
        elif self.path.endswith("/job-proxied/events"):
            self.restart_behind_a_proxy()
        elif self.path.endswith("/events"):
            first = b": ping\r\n\r\n" + event(1, "progress", RUNNING)
            self.answer(200, event(2, "end", DONE) if after == "1" else first)
        elif self.path.endswith("/gone/bundle"):
            problem = {"detail": "there is no avatar 'gone'", "reason": "AVATAR_NOT_FOUND"}
            self.answer(404, json.dumps(problem).encode())
        elif self.path.endswith("/odd/bundle"):
            self.answer(404, b"[]")
        elif self.path.endswith("/broken/bundle"):
            self.break_off(b"zi")
        elif self.path.endswith("/bundle"):
            self.answer(200, b"zip")
        elif self.path.endswith("/page"):
            self.answer(200, b"<html>Log in</html>")
        else:
            state = DONE if self.server.was_resumed else RUNNING
            self.answer(200, json.dumps(state).encode())
        self.server.was_resumed = self.server.was_resumed or after == "1"

    def do_POST(self) -> None:
        """Takes an upload and does not answer before the caller has gone."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.connection.recv(1)
        self.close_connection = True

    def be_quiet(self) -> None:
        """Breaks off twice after a while without an event, and then has the last one."""
        self.server.quiet_count += 1
        if self.server.quiet_count > 2:
            self.answer(200, event(1, "end", DONE))
            self.server.was_resumed = True
            return
        self.break_off(b": ping\r\n\r\n")
        time.sleep(0.5)

    def break_off(self, begun: bytes) -> None:
        """Ends the connection before the body is whole."""
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(begun)
        self.wfile.flush()
        self.close_connection = True

    def restart_behind_a_proxy(self) -> None:
        """Breaks off; a proxy answers twice in its place before it goes on."""
        self.server.proxied_count += 1
        date = {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}
        if self.server.proxied_count == 1:
            self.answer(200, event(1, "progress", RUNNING))
        elif self.server.proxied_count == 2:
            self.answer(502, b"<html>Bad Gateway</html>")
        elif self.server.proxied_count == 3:
            self.answer(503, b"<html>Service Unavailable</html>", **date)
        else:
            self.answer(200, event(2, "end", DONE))
            self.server.was_resumed = True

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


@pytest.fixture
def client() -> Iterator[GatewayClient]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    server.was_resumed, server.quiet_count, server.proxied_count = False, 0, 0
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    with GatewayClient(f"http://127.0.0.1:{server.server_port}") as client:
        yield client
    server.shutdown()
    server.server_close()
    thread.join()


def test_following_comes_back_and_misses_nothing(client: GatewayClient) -> None:
    assert list(client.follow_job("job-1")) == [RUNNING, DONE]


def test_following_comes_back_though_nothing_had_happened_for_long(
    client: GatewayClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("styleavatar_client.rest._RECONNECT_LIMIT_S", 0.3)
    assert list(client.follow_job("job-quiet")) == [DONE]


def test_following_comes_back_though_a_proxy_answers_while_the_gateway_restarts(
    client: GatewayClient,
) -> None:
    assert list(client.follow_job("job-proxied")) == [RUNNING, DONE]


def test_following_ends_when_the_gateway_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("styleavatar_client.rest._RECONNECT_LIMIT_S", 0.3)
    with (
        GatewayClient("http://127.0.0.1:9") as client,
        pytest.raises(ClientError, match="styleavatar serve"),
    ):
        list(client.follow_job("job-1"))


def test_a_bundle_is_fetched_whole(client: GatewayClient, tmp_path: Path) -> None:
    path = client.fetch_bundle("anna", tmp_path / "new" / "anna.zip")
    assert path.read_bytes() == b"zip"
    assert list(path.parent.iterdir()) == [path]


def test_of_a_bundle_that_breaks_off_nothing_is_left(client: GatewayClient, tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="without sending complete"):
        client.fetch_bundle("broken", tmp_path / "broken.zip")
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_is_the_gateways_sentence(client: GatewayClient, tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="no avatar 'gone'") as caught:
        client.fetch_bundle("gone", tmp_path / "gone.zip")
    assert (caught.value.reason, caught.value.code) == ("AVATAR_NOT_FOUND", "404")
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_without_a_sentence_is_its_status(client: GatewayClient, tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="the gateway answered 404"):
        client.fetch_bundle("odd", tmp_path / "odd.zip")


def test_a_web_page_is_no_gateway(client: GatewayClient) -> None:
    with pytest.raises(ClientError, match="is no gateway"):
        client.get_avatar("page")


def test_an_upload_that_is_not_answered_in_time_may_have_come(
    client: GatewayClient, tmp_path: Path
) -> None:
    (tmp_path / "video.mp4").write_bytes(b"a video")
    client._http.timeout = 0.5
    with pytest.raises(ClientError, match="may be under way all the same") as caught:
        client.create_avatar(tmp_path / "video.mp4", "I consent.")
    assert caught.value.code == "UNAVAILABLE"
    assert "styleavatar serve" not in str(caught.value)


def test_nobody_there() -> None:
    with (
        GatewayClient("http://127.0.0.1:9") as client,
        pytest.raises(ClientError, match="styleavatar serve"),
    ):
        client.list_avatars()


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "http://gateway:port"])
def test_what_is_no_url_is_told(url: str) -> None:
    with (
        pytest.raises(ClientError, match=f"{url} is no address of a gateway: it begins with http"),
        GatewayClient(url) as client,
    ):
        client.get_job("job-1")
