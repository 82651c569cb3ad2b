# SPDX-License-Identifier: Apache-2.0
"""Reads a multipart form straight to disk, in constant memory and up to a limit.

Starlette's own form parser accepts a file of any size before a route sees the first byte.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import IO, TYPE_CHECKING

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from services.common.storage import safe_file_name
from styleavatar_core.errors import InvalidInputError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

# What a form may have beside its file: fields, headers, boundaries.
FORM_BYTES_LIMIT = 1_000_000
_FIELD_BYTES_LIMIT = 16 * 1024


class UploadReader:
    """Takes the body of a request piece by piece; the file goes to disk, known fields are kept.

    Attributes:
        fields: Known text fields of the form by name.
        file_path: Where the file lies, once one has come.
        file_name: Its cleaned name.
        byte_count: Bytes of the file so far.
    """

    def __init__(
        self,
        content_type: str,
        folder: Path,
        *,
        file_field: str,
        text_fields: Collection[str],
        limit: int,
    ) -> None:
        """Prepares to read.

        Args:
            content_type: Header of that name.
            folder: Existing folder that the file is written into.
            file_field: Name of the form field that carries the file.
            text_fields: Names of the form fields that are kept; others are read and forgotten.
            limit: Most bytes that the file may have; all else of the form together may have
                ``FORM_BYTES_LIMIT``.

        Raises:
            InvalidInputError: The request is not a multipart form.
        """
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise InvalidInputError(
                f"send the video as multipart/form-data with a field named {file_field!r}"
                f" (curl -F {file_field}=@file.mp4 ...), not as {content_type or 'nothing'!r}",
                reason="NOT_MULTIPART",
            )
        self.fields: dict[str, str] = {}
        self.file_path: Path | None = None
        self.file_name = ""
        self.byte_count = 0
        self._folder = folder
        self._file_field = file_field
        self._text_fields = text_fields
        self._body_byte_count = 0
        self._limit = limit
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        self._field_name = ""
        self._field_value = bytearray()
        self._file: IO[bytes] | None = None
        self._is_complete = False
        self._parser = MultipartParser(boundary, self._callbacks())

    def feed(self, data: bytes) -> None:
        """Takes the next piece of the body.

        Raises:
            InvalidInputError: The form is damaged, or it or its file too large.
        """
        self._body_byte_count += len(data)
        try:
            self._parser.write(data)
        except MultipartParseError as error:
            raise InvalidInputError(
                "the multipart form is damaged and could not be read", reason="BAD_FORM"
            ) from error
        if self._body_byte_count - self.byte_count > FORM_BYTES_LIMIT:
            raise InvalidInputError(
                f"the form has more than {FORM_BYTES_LIMIT / 1e6:g} MB beside its file; send the"
                f" video as the field {self._file_field!r}, and nothing large with it",
                reason="UPLOAD_TOO_LARGE",
            )

    def finish(self) -> None:
        """Says that the body has ended.

        Raises:
            InvalidInputError: It ended before the form did.
        """
        self.close()
        if not self._is_complete:
            raise broken_off()

    def close(self) -> None:
        """Closes the file; may be called at any time and more than once."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }

    def _on_part_begin(self) -> None:
        self._disposition = b""
        self._field_name = ""
        self._field_value = bytearray()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._field_name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._field_name == self._file_field and self.file_path is None:
            name = options.get(b"filename", b"").decode("utf-8", "replace")
            self.file_name = safe_file_name(name)
            self.file_path = self._folder / self.file_name
            self._file = self.file_path.open("wb")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        piece = data[start:end]
        if self._file is not None:
            self.byte_count += len(piece)
            if self.byte_count > self._limit:
                raise too_large(self._limit)
            self._file.write(piece)
        elif len(self._field_value) + len(piece) > _FIELD_BYTES_LIMIT:
            raise InvalidInputError(f"form field {self._field_name!r} is longer than 16 KiB")
        else:
            self._field_value += piece

    def _on_part_end(self) -> None:
        if self._file is not None:
            self.close()
        elif self._field_name in self._text_fields:
            self.fields[self._field_name] = self._field_value.decode("utf-8", "replace").strip()

    def _on_end(self) -> None:
        self._is_complete = True


def too_large(limit: int) -> InvalidInputError:
    """Returns the refusal of a file above the limit, in bytes."""
    return InvalidInputError(
        f"the video is larger than {limit / 1e6:g} MB, the most this server accepts; one to two"
        " minutes of video are enough",
        reason="UPLOAD_TOO_LARGE",
    )


def broken_off() -> InvalidInputError:
    """Says that an upload ended before its form did."""
    return InvalidInputError(
        "the upload broke off before its end; send it again", reason="UPLOAD_INCOMPLETE"
    )
