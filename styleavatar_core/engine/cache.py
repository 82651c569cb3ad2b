# SPDX-License-Identifier: Apache-2.0
"""Where derived engines are kept. Losing the cache costs time, never data.

An entry is one file: a digest of its contents, then the contents; a note beside it says for people
and programs what was found of it. Builders of one entry wait for each other under a lock that dies
with its process; an entry appears under its name only when it is complete; one that is not what was
written is built anew. A cache that cannot be written to (full, read-only) is said once and done
without.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from styleavatar_core.engine.cache_key import ENTRY_SUFFIX, CacheKey
from styleavatar_core.errors import AssetError

logger = logging.getLogger(__name__)

DEFAULT_LIMIT_BYTES = 4 * 2**30
_DIGEST_BYTES = 32
_NOTE_SUFFIX = ".txt"
_SERVED_SUFFIX = ".served"
_LEFTOVER_S = 3600.0

Engine = TypeVar("Engine")


def cache_folder() -> Path:
    """Returns the folder of derived engines; it may not exist yet."""
    root = os.environ.get("XDG_CACHE_HOME")
    base = Path(root) if root else Path.home() / ".cache"
    return base / "styleavatar" / "engines"


class EngineCache:
    """Derived engines on disk, bounded in bytes; safe to share among processes.

    Args:
        folder: Where entries are; made when the first one is written.
        limit_bytes: Together the entries take no more; those longest unused go first.
    """

    def __init__(
        self, folder: Path | None = None, *, limit_bytes: int = DEFAULT_LIMIT_BYTES
    ) -> None:
        self.folder = folder or cache_folder()
        self.limit_bytes = limit_bytes

    def open(
        self,
        key: CacheKey,
        build: Callable[[], bytes],
        load: Callable[[bytes], Engine],
    ) -> Engine:
        """Loads an engine from its entry, which is built first if it is not there or unusable.

        Args:
            key: Which engine.
            build: Makes the contents of its entry, which are kept before they are loaded: that may
                fail for want of memory, and building again would take as long.
            load: Makes the engine from the contents; an ``AssetError`` says they are unusable.

        Returns:
            The engine.
        """
        engine = self.load(key, load)
        if engine is not None:
            return engine
        with self._lock(key):
            engine = self.load(key, load)  # another builder may have been faster
            if engine is not None:
                return engine
            contents = build()
            self._write(key, contents)
        return load(contents)

    def load(self, key: CacheKey, load: Callable[[bytes], Engine]) -> Engine | None:
        """Loads an engine from its entry.

        Args:
            key: Which engine.
            load: As for :meth:`open`.

        Returns:
            The engine, or None if there is no entry that can be used.
        """
        path = self.folder / key.file_name
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("cached engine cannot be read", extra={"path": str(path), "why": error})
            return None
        contents = data[_DIGEST_BYTES:]
        if hashlib.sha256(contents).digest() != data[:_DIGEST_BYTES]:
            logger.warning("cached engine is damaged, building anew", extra={"path": str(path)})
            return None
        try:
            engine = load(contents)
        except AssetError as error:
            logger.warning(
                "cached engine is unusable, building anew", extra={"path": str(path), "why": error}
            )
            return None
        _note_use(path)
        return engine

    def replace(self, key: CacheKey, contents: bytes) -> None:
        """Writes an entry whether it is there or not.

        Args:
            key: Which entry.
            contents: Of the entry.
        """
        with self._lock(key):
            self._write(key, contents)

    def read_note(self, key: CacheKey) -> str | None:
        """Returns the note of an entry, which need not be there itself; None if there is none."""
        path = (self.folder / key.file_name).with_suffix(_NOTE_SUFFIX)
        try:
            text = path.read_text()
        except (OSError, ValueError):
            return None
        _note_use(path)
        return text

    def write_note(self, key: CacheKey, text: str) -> None:
        """Writes the note of an entry."""
        path = (self.folder / key.file_name).with_suffix(_NOTE_SUFFIX)
        incoming = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            incoming.write_text(text)
            incoming.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                incoming.unlink()
            logger.warning(
                "note of an engine could not be kept", extra={"path": str(path), "why": str(error)}
            )

    def forget(self, digest: str) -> None:
        """Removes all that is kept of an avatar, and what builders of it left: a person's weights.

        Args:
            digest: ``AvatarBundle.digest``.

        Raises:
            OSError: Some of it is still there; which files, and why.
        """
        try:
            paths = list(self.folder.iterdir())
        except FileNotFoundError:
            return
        mark = self.folder / f"{digest}{_SERVED_SUFFIX}"
        failures: dict[str, OSError] = {}
        for path in paths:
            if path.name.lstrip(".").startswith(digest[:32]) and path != mark:
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    failures[path.name] = error
        if failures:
            reason = next(iter(failures.values()))
            raise OSError(
                f"{', '.join(sorted(failures))} in {self.folder} cannot be removed "
                f"({reason.strerror}) and may hold a deleted person's weights; make the folder "
                "writable, or remove them by hand"
            ) from reason
        if mark in paths:  # as long as anything is left it stays: the next service tries again
            mark.unlink(missing_ok=True)

    def mark_served(self, digest: str) -> None:
        """Notes that a service offers an avatar: what is kept of it goes when it is deleted.

        Args:
            digest: ``AvatarBundle.digest``.
        """
        with contextlib.suppress(OSError):  # where no note can be written no engine is kept either
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / f"{digest}{_SERVED_SUFFIX}").touch()

    def served(self) -> set[str]:
        """Returns the digests that :meth:`mark_served` was given and that were not forgotten.

        Raises:
            OSError: The folder is there and cannot be listed.
        """
        with contextlib.suppress(FileNotFoundError):
            paths = list(self.folder.iterdir())  # unlike glob, which finds nothing then
            return {path.stem for path in paths if path.suffix == _SERVED_SUFFIX}
        return set()

    def _entries(self) -> list[Path]:
        """Returns the complete entries and notes, longest unused first."""
        with contextlib.suppress(OSError):
            kinds = (ENTRY_SUFFIX, _NOTE_SUFFIX)
            found = [path for kind in kinds for path in self.folder.glob(f"[!.]*{kind}")]
            return sorted(found, key=_last_used)
        return []

    def _write(self, key: CacheKey, contents: bytes) -> None:
        """Writes an entry and makes room for it; called under the lock of its key."""
        path = self.folder / key.file_name
        incoming = path.with_name(f".{path.name}.part")
        if len(contents) > self.limit_bytes:
            logger.warning(
                "engine is larger than the whole cache and is not kept",
                extra={"size_bytes": len(contents), "limit_bytes": self.limit_bytes},
            )
            return
        try:
            self._make_room(len(contents))
            with incoming.open("wb") as file:
                file.write(hashlib.sha256(contents).digest())
                file.write(contents)
                file.flush()
                os.fsync(file.fileno())
            incoming.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                incoming.unlink()
            logger.warning(
                "engine could not be cached and will be built again next time; "
                "make room or set XDG_CACHE_HOME to a writable folder",
                extra={"folder": str(self.folder), "why": str(error)},
            )

    def _make_room(self, size_bytes: int) -> None:
        """Removes entries longest unused until ``size_bytes`` more fit."""
        for path in self.folder.glob(".*.part"):  # of builders that died
            if time.time() - _last_used(path) > _LEFTOVER_S:
                path.unlink(missing_ok=True)
        sizes = {path: _size_bytes(path) for path in self._entries()}
        total = sum(sizes.values()) + size_bytes + _DIGEST_BYTES
        for path, entry_bytes in sizes.items():
            if total <= self.limit_bytes:
                return
            total -= entry_bytes
            path.unlink(missing_ok=True)
            logger.info("cached engine removed to make room", extra={"entry": path.name})

    @contextlib.contextmanager
    def _lock(self, key: CacheKey) -> Iterator[None]:
        """Holds the lock of a key, or nothing where no lock can be made."""
        path = self.folder / f".{key.file_name}.lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = path.open("w")
        except OSError as error:
            logger.warning(
                "engine cache cannot be written to; engines are built at every start. "
                "Set XDG_CACHE_HOME to a writable folder",
                extra={"folder": str(self.folder), "why": str(error)},
            )
            yield
            return
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)  # released by the system if this process dies
            except OSError as error:
                logger.warning(
                    "engine cache cannot be locked on this file system; two processes may build "
                    "the same engine",
                    extra={"folder": str(self.folder), "why": str(error)},
                )
            yield


def _size_bytes(path: Path) -> int:
    """Returns the size of an entry; nothing for one that has just gone."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _note_use(path: Path) -> None:
    """Makes an entry the last that was used."""
    with contextlib.suppress(OSError):  # a read-only cache keeps no times
        os.utime(path)


def _last_used(path: Path) -> float:
    """Returns when an entry was last used, as seconds; an entry that has just gone sorts first."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
