# SPDX-License-Identifier: Apache-2.0
"""The files of a bundle as they are read: from a directory or a zip, compared with their sha256.

Tensors are looked at where the file was read to, so that weights are not copied once more.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import operator
import os
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from styleavatar_core.avatar.manifest import BundleFile
from styleavatar_core.errors import AssetError
from styleavatar_core.types import ByteArray

Tensors = dict[str, npt.NDArray[np.generic]]

_MAX_FILE_BYTES = 2 * 2**30
_PIECE_BYTES = 4 * 2**20  # read and hashed at a time, while it is in the caches
# How a zip file says that it is not what was once written, or not as we write it.
_DAMAGES = (zipfile.BadZipFile, zlib.error, RuntimeError)
_LENGTH_BYTES = 8  # before the header of a .safetensors file
_KINDS = {"F32": np.float32, "F16": np.float16, "F64": np.float64, "I64": np.int64, "U8": np.uint8}


def read_member(path: Path, name: str) -> bytes:
    """Reads a file of a bundle, which is not compared with anything.

    Args:
        path: Directory or zip file.
        name: Of the file in it.

    Raises:
        AssetError: It is not there, or larger than any avatar's.
    """
    with _opened(path, name) as (file, _):
        return file.read()


def check_digest(path: Path, name: str, digest: str, sha256: str) -> None:
    """Compares what was read with what was written.

    Args:
        path: The bundle.
        name: Of its file.
        digest: sha256 of what was read, in hexadecimal digits.
        sha256: Of what was written.

    Raises:
        AssetError: It is something else.
    """
    if digest != sha256:
        raise AssetError(
            f"{name} in {path.name} is not what was written (its sha256 differs); the bundle is "
            "damaged or was tampered with: fetch it again",
            reason="BUNDLE_TAMPERED",
        )


def read_beside(path: Path, name: str, entry: BundleFile) -> Future[tuple[ByteArray, Future[None]]]:
    """Reads a file beside other work, and compares it with its sha256 beside that.

    Args:
        path: The bundle, directory or zip.
        name: Of its file.
        entry: What the manifest says of the file.

    Returns:
        Waits for the file's bytes and for what waits for their comparison. Both raise
        ``AssetError``; nothing made of the bytes may be used before the second has returned.
    """
    with _opened(path, name) as (_, size_bytes):
        # In the caller's thread: of what it has freed, the pages are there already.
        contents = np.empty(size_bytes, np.uint8)

    def read() -> tuple[ByteArray, Future[None]]:
        digest, whole = hashlib.sha256(), contents.data
        checker = ThreadPoolExecutor(1, "checking")
        try:
            with _opened(path, name) as (file, _):
                for start in range(0, size_bytes, _PIECE_BYTES):
                    piece = whole[start : start + _PIECE_BYTES]
                    file.readinto(piece)  # all of it; less only of a file that has just changed
                    checker.submit(digest.update, piece)
            return contents, checker.submit(
                lambda: check_digest(path, name, digest.hexdigest(), entry.sha256)
            )
        finally:
            checker.shutdown(wait=False)  # when it is done

    reader = ThreadPoolExecutor(1, "reading")
    reading = reader.submit(read)
    reader.shutdown(wait=False)
    return reading


def parse_tensors(path: Path, name: str, contents: ByteArray) -> Tensors:
    """Returns the tensors of a .safetensors file, by name: views of its bytes.

    Args:
        path: The bundle.
        name: Of its file.
        contents: All of the file; they may be anything.

    Raises:
        AssetError: They are not such a file's.
    """
    try:
        length = int(contents[:_LENGTH_BYTES].view("<u8")[0])
        data = contents[_LENGTH_BYTES + length :]
        header = json.loads(contents[_LENGTH_BYTES : _LENGTH_BYTES + length].tobytes())
        header.pop("__metadata__", None)
        return {tensor: _view(data, **entry) for tensor, entry in header.items()}
    except (
        ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError
    ) as error:  # fmt: skip
        raise AssetError(f"{name} in {path.name} cannot be read: {error}") from error


def _view(
    data: ByteArray, dtype: str, shape: list[int], data_offsets: list[int]
) -> npt.NDArray[np.generic]:
    """Returns a tensor that lies between two places, of exactly its size."""
    begin, end = data_offsets
    if not 0 <= begin <= end <= len(data):
        raise ValueError("a tensor lies outside of it")
    return data[begin:end].view(_KINDS[dtype]).reshape([operator.index(side) for side in shape])


@contextlib.contextmanager
def _opened(path: Path, name: str) -> Iterator[tuple[io.BufferedIOBase, int]]:
    """Opens a file of a bundle; gives its size in bytes, too."""
    try:
        with contextlib.ExitStack() as opened:
            if path.is_dir():
                file: io.BufferedIOBase = opened.enter_context((path / name).open("rb"))
                size_bytes = os.fstat(file.fileno()).st_size
            else:
                archive = opened.enter_context(zipfile.ZipFile(path))
                # A BufferedIOBase, whatever the stub says.
                file = opened.enter_context(archive.open(name))  # type: ignore[assignment]
                size_bytes = archive.getinfo(name).file_size
            if size_bytes > _MAX_FILE_BYTES:
                raise AssetError(f"{name} in {path.name} is larger than any avatar's")
            yield file, size_bytes
    except _DAMAGES as error:
        raise AssetError(
            f"{name} in {path.name} is damaged or was tampered with: fetch the avatar again",
            reason="BUNDLE_TAMPERED",
        ) from error
    except (OSError, KeyError) as error:
        raise AssetError(f"{path.name} is not a whole avatar bundle: {name} is missing") from error
