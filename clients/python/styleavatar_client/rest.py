# SPDX-License-Identifier: Apache-2.0
"""The gateway's REST interface: upload with consent, follow the job, fetch the bundle."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, cast

import httpx

from styleavatar_client.errors import ClientError

DEFAULT_GATEWAY = "http://127.0.0.1:8080"

_FINAL_STATES = ("SUCCEEDED", "FAILED", "CANCELED")
# Events come at least every 15 s, as comments if nothing happens.
_TIMEOUT = httpx.Timeout(30.0, read=60.0, write=600.0)
_RECONNECT_LIMIT_S = 120.0
# While the gateway restarts a proxy before it says any of them.
_AWAY_STATUSES = (502, 503, 504)
_MAY_BE_DONE = (
    " What it was asked for may be under way all the same: its page lists all avatars; look there"
    " before you ask again."
)
_CONNECTED = "connected"  # told by ourselves: from the gateway nothing may come for hours


class GatewayClient:
    """Talks to one gateway; its /docs describe the dictionaries that come back.

    Args:
        url: Of the gateway.
        api_key: Shown to it, where it asks for one.

    Raises:
        ClientError: This is no URL.
    """

    def __init__(self, url: str = DEFAULT_GATEWAY, *, api_key: str = "") -> None:
        self._url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        with self._translated():
            self._http = httpx.Client(base_url=self._url, timeout=_TIMEOUT, headers=headers)

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        """Returns the client."""
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the connections."""
        self.close()

    def create_avatar(
        self,
        video: Path,
        consent: str,
        *,
        subject: str = "",
        given_by: str = "",
        source: str = "",
        preset: str = "lite",
        minutes: float | None = None,
    ) -> dict[str, Any]:
        """Uploads a portrait video with the consent of the person in it.

        Args:
            video: The video file.
            consent: The statement of consent, in words.
            subject: Who is shown.
            given_by: Who consents, if not the subject.
            source: Where the video comes from.
            preset: ``nano``, ``lite``, ``hd``, ``paper`` or ``paper+``.
            minutes: Training time; None for the preset's usual one.

        Returns:
            ``avatar_id``, ``job_id`` and ``links``.

        Raises:
            ClientError: The gateway refused, or does not answer.
        """
        fields = {
            "consent": consent,
            "consent_subject": subject,
            "consent_given_by": given_by,
            "source": source,
            "preset": preset,
            "minutes": "" if minutes is None else f"{minutes:g}",
        }
        with video.open("rb") as file:
            return self._json("POST", "/v1/avatars", data=fields, files={"video": file})

    def list_avatars(self) -> list[dict[str, Any]]:
        """Returns all avatars, ready or in the making."""
        return cast("list[dict[str, Any]]", self._json("GET", "/v1/avatars"))

    def get_avatar(self, avatar_id: str) -> dict[str, Any]:
        """Returns an avatar."""
        return self._json("GET", f"/v1/avatars/{avatar_id}")

    def tracking_address(self) -> str:
        """Returns where tracking is reached: at the gateway's host, on the port that it names."""
        parts = cast("list[dict[str, Any]]", self._json("GET", "/v1/system"))
        address = next(str(part["address"]) for part in parts if part["name"] == "tracking")
        host = self._http.base_url.host
        return f"{f'[{host}]' if ':' in host else host}:{address.rpartition(':')[2]}"

    def delete_avatar(self, avatar_id: str) -> None:
        """Deletes an avatar, its video and everything made of it."""
        self._request("DELETE", f"/v1/avatars/{avatar_id}")

    def get_job(self, job_id: str) -> dict[str, Any]:
        """Returns a training job."""
        return self._json("GET", f"/v1/training-jobs/{job_id}")

    def cancel_job(self, job_id: str) -> dict[str, Any]:
        """Stops a training job."""
        return self._json("POST", f"/v1/training-jobs/{job_id}:cancel")

    def retry_job(self, job_id: str) -> dict[str, Any]:
        """Runs a failed or canceled job again."""
        return self._json("POST", f"/v1/training-jobs/{job_id}:retry")

    def follow_job(self, job_id: str) -> Iterator[dict[str, Any]]:
        """Yields the job whenever something happens to it, until its final state.

        Comes back by itself when the connection breaks, and misses nothing.

        Raises:
            ClientError: No such job, it was deleted, or the gateway stays away.
        """
        last_event_id = ""
        deadline: float | None = None  # while the gateway is away
        while True:
            try:
                for event_id, name, data in self._events(job_id, last_event_id):
                    last_event_id = event_id or last_event_id
                    deadline = None
                    if name == _CONNECTED:
                        continue
                    if name == "deleted":
                        raise ClientError(f"job {job_id} was deleted", code="NOT_FOUND")
                    yield data
                if self.get_job(job_id)["state"] in _FINAL_STATES:
                    return
            except (httpx.TransportError, ClientError) as error:
                is_away = isinstance(error, httpx.TransportError) or error.code == "UNAVAILABLE"
                deadline = deadline or time.monotonic() + _RECONNECT_LIMIT_S
                if not is_away or time.monotonic() > deadline:
                    with self._translated():
                        raise
            time.sleep(0.5)

    def fetch_bundle(self, avatar_id: str, path: Path) -> Path:
        """Writes a ready avatar's bundle to a zip file, whole or not at all; returns its path."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        with (
            self._translated(),
            self._http.stream("GET", f"/v1/avatars/{avatar_id}/bundle") as answer,
        ):
            _check(answer)
            try:
                with part.open("wb") as file:
                    for piece in answer.iter_bytes():
                        file.write(piece)
                return part.replace(path)
            finally:
                part.unlink(missing_ok=True)

    def _events(self, job_id: str, after: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
        headers = {"Last-Event-ID": after} if after else {}
        url = f"/v1/training-jobs/{job_id}/events"
        with self._http.stream("GET", url, headers=headers) as answer:
            _check(answer)
            yield "", _CONNECTED, {}
            fields: dict[str, str] = {}
            for line in _lines(answer.iter_text()):
                name, _, value = line.partition(":")
                if line and name:
                    fields[name] = value.removeprefix(" ")
                elif not line and "data" in fields:
                    yield fields.get("id", ""), fields.get("event", ""), json.loads(fields["data"])
                    fields = {}

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        answer = self._request(method, path, **options)
        try:
            return cast("dict[str, Any]", answer.json())
        except ValueError as error:
            raise ClientError(
                f"What answers at {self._url} is no gateway: its answer is not JSON. Say where the"
                " gateway is with --gateway.",
                code=str(answer.status_code),
            ) from error

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        with self._translated("" if method == "GET" else _MAY_BE_DONE):
            answer = self._http.request(method, path, **options)
        _check(answer)
        return answer

    @contextmanager
    def _translated(self, advice: str = "") -> Iterator[None]:
        """Turns what goes wrong on the way into sentences; advice is for when it had got there."""
        try:
            yield
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise ClientError(
                f"{self._url} is no address of a gateway: it begins with http:// or https://, as "
                f"{DEFAULT_GATEWAY} does.",
                code="INVALID_ARGUMENT",
            ) from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ClientError(
                f"No gateway answers at {self._url} ({error}). Start one with `styleavatar serve`,"
                " or say where it is with --gateway.",
                code="UNAVAILABLE",
            ) from error
        except httpx.TransportError as error:
            raise ClientError(
                f"The gateway at {self._url} broke off, or did not answer in time ({error})."
                f"{advice}",
                code="UNAVAILABLE",
            ) from error


def _lines(pieces: Iterator[str]) -> Iterator[str]:
    """Puts lines together, which end with LF or CR LF alone: the JSON in them may have U+2028."""
    rest = ""
    for piece in pieces:
        *lines, rest = (rest + piece).split("\n")
        for line in lines:
            yield line.removesuffix("\r")


def _check(answer: httpx.Response) -> None:
    """Turns a refusal into an error with the gateway's own sentence."""
    if answer.is_success:
        return
    answer.read()
    try:
        problem = answer.json()
    except ValueError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    delay = answer.headers.get("Retry-After", "")  # seconds, or a date, which says no delay
    raise ClientError(
        problem.get("detail") or f"the gateway answered {answer.status_code}",
        code="UNAVAILABLE" if answer.status_code in _AWAY_STATUSES else str(answer.status_code),
        reason=problem.get("reason", ""),
        retry_delay_s=float(delay) if delay.isdecimal() else None,
    )
