# SPDX-License-Identifier: Apache-2.0
"""A multipart form goes to disk, however it is cut into pieces."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from services.gateway.upload import FORM_BYTES_LIMIT, UploadReader
from styleavatar_core.errors import InvalidInputError

TYPE = "multipart/form-data; boundary=xx"
VIDEO = bytes(range(256)) * 4
BODY = (
    b'--xx\r\nContent-Disposition: form-data; name="consent"\r\n\r\n yes \xc3\xa9 \r\n'
    b'--xx\r\nContent-Disposition: form-data; name="video"; filename="../a b.mp4"\r\n'
    b"Content-Type: video/mp4\r\n\r\n" + VIDEO + b"\r\n--xx--\r\n"
)


def reader(folder: Path, limit: int = 10_000) -> UploadReader:
    return UploadReader(
        TYPE, folder, file_field="video", text_fields=("consent", "source"), limit=limit
    )


def text_part(name: str, text: str) -> bytes:
    return f'--xx\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()


def feed_all(upload: UploadReader, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        upload.feed(piece)


@pytest.mark.parametrize("piece_size", [1, 7, 100, len(BODY)])
def test_fields_and_file(tmp_path: Path, piece_size: int) -> None:
    upload = reader(tmp_path)
    feed_all(
        upload, (BODY[start : start + piece_size] for start in range(0, len(BODY), piece_size))
    )
    upload.finish()
    assert upload.fields == {"consent": "yes é"}
    assert upload.file_path == tmp_path / "a_b.mp4"
    assert upload.file_path.read_bytes() == VIDEO
    assert upload.byte_count == len(VIDEO)


def test_the_limit_is_exact(tmp_path: Path) -> None:
    reader(tmp_path, limit=len(VIDEO)).feed(BODY)
    upload = reader(tmp_path, limit=len(VIDEO) - 1)
    with pytest.raises(InvalidInputError) as caught:
        upload.feed(BODY)
    upload.close()
    assert caught.value.reason == "UPLOAD_TOO_LARGE"


def test_a_body_that_breaks_off(tmp_path: Path) -> None:
    upload = reader(tmp_path)
    upload.feed(BODY[:-10])
    with pytest.raises(InvalidInputError, match="broke off"):
        upload.finish()


def test_a_damaged_body(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="damaged"):
        reader(tmp_path).feed(b"this is no form")


def test_a_field_that_never_ends(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="consent"):
        reader(tmp_path).feed(BODY.replace(b"yes", b"yes" * 10_000))


def test_only_known_fields_are_kept(tmp_path: Path) -> None:
    upload = reader(tmp_path)
    upload.feed(text_part("other", "x") + text_part("source", "a camera") + BODY)
    upload.finish()
    assert upload.fields == {"source": "a camera", "consent": "yes é"}


@pytest.mark.parametrize("name", ["source", "f{}"])
def test_fields_without_end_are_refused_however_large_a_file_may_be(
    tmp_path: Path, name: str
) -> None:
    upload = reader(tmp_path, limit=10**12)
    part_count = FORM_BYTES_LIMIT // 1000
    parts = (text_part(name.format(index), "x" * 1000) for index in range(part_count))
    with pytest.raises(InvalidInputError) as caught:
        feed_all(upload, parts)
    assert caught.value.reason == "UPLOAD_TOO_LARGE"


def test_a_large_file_takes_nothing_from_what_may_be_beside_it(tmp_path: Path) -> None:
    upload = reader(tmp_path, limit=10**7)
    upload.feed(BODY.replace(VIDEO, bytes(5 * FORM_BYTES_LIMIT)))
    upload.finish()
    assert upload.byte_count == 5 * FORM_BYTES_LIMIT


@pytest.mark.parametrize("kind", ["", "application/json", "multipart/form-data"])
def test_other_content_types(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        UploadReader(kind, tmp_path, file_field="video", text_fields=(), limit=1)
    assert caught.value.reason == "NOT_MULTIPART"
