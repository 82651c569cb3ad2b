# SPDX-License-Identifier: Apache-2.0
"""The avatars in the artifact store, as the front process sees them: manifests, no weights."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from services.common.storage import MANIFEST_NAME, AvatarStore
from styleavatar_core.avatar.bundle import read_bundle
from styleavatar_core.avatar.manifest import AvatarManifest
from styleavatar_core.errors import NotFoundError, StyleAvatarError

logger = logging.getLogger(__name__)

# A bundle that replaces another is missing between two renames; one missed for longer is deleted.
REPLACED_WITHIN_S = 0.3


@dataclass(frozen=True, slots=True)
class AvatarEntry:
    """One avatar that can be rendered.

    Attributes:
        avatar_id: Its id.
        path: Folder of its bundle.
        revision: Changes when the bundle is replaced.
        digest: Key of what was derived from the bundle, ``AvatarBundle.digest``.
        manifest: What the bundle says about itself.
    """

    avatar_id: str
    path: Path
    revision: str
    digest: str
    manifest: AvatarManifest

    @property
    def key(self) -> tuple[str, str]:
        """Tells its engine from those of other avatars, and of earlier bundles of this one."""
        return self.avatar_id, self.revision


class AvatarCatalog:
    """Reads manifests from the store, each once per revision.

    Attributes:
        on_change: Gets the id of an avatar that was found, replaced or missed; from any thread.
    """

    def __init__(self, store: AvatarStore) -> None:
        self._store = store
        self._entries: dict[str, AvatarEntry] = {}
        self._vanished: list[AvatarEntry] = []
        self.on_change: Callable[[str], None] = lambda avatar_id: None

    def get(self, avatar_id: str) -> AvatarEntry:
        """Returns an avatar as it is in the store now.

        Raises:
            NotFoundError: There is no such avatar.
            AssetError: Its manifest cannot be used.
        """
        revision = self.revision(avatar_id)
        entry = self._entries.get(avatar_id)
        if entry is None or entry.revision != revision:
            path = self._store.path(avatar_id)
            bundle = read_bundle(path, verify=False)
            if entry is not None:
                self._vanished.append(entry)
            entry = AvatarEntry(avatar_id, path, revision, bundle.digest, bundle.manifest)
            self._entries[avatar_id] = entry
            self.on_change(avatar_id)
        return entry

    def known(self, avatar_id: str) -> AvatarEntry | None:
        """Returns an avatar as it was when last looked at, without a look now; None if never."""
        return self._entries.get(avatar_id)

    def seen(self) -> list[AvatarEntry]:
        """Returns the avatars as they were when last looked at, without a look now."""
        return list(self._entries.values())

    def vanished(self) -> list[AvatarEntry]:
        """Returns the bundles that were deleted or replaced and are not let go yet."""
        for avatar_id in tuple(self._entries):
            try:
                with contextlib.suppress(StyleAvatarError):
                    self.get(avatar_id)
            except OSError as error:  # nothing is known of it now
                extra = {"avatar_id": avatar_id, "reason": str(error)}
                logger.warning("an avatar cannot be read", extra=extra)
        return list(self._vanished)

    def let_go(self, entry: AvatarEntry) -> None:
        """Forgets a vanished bundle: nothing derived from it is left."""
        self._vanished.remove(entry)

    def newest(self, count: int) -> list[AvatarEntry]:
        """Returns the avatars made last, newest first; those that cannot be used are left out."""
        entries = self.list()
        entries.sort(key=lambda entry: entry.revision.split("-")[1], reverse=True)
        return entries[:count]

    def list(self) -> list[AvatarEntry]:
        """Returns the avatars, ordered by id; those that cannot be used are left out."""
        entries = []
        for avatar_id in self._store.list():
            try:
                entries.append(self.get(avatar_id))
            except (StyleAvatarError, OSError) as error:
                extra = {"avatar_id": avatar_id, "reason": str(error)}
                logger.warning("an avatar cannot be used", extra=extra)
        return entries

    def revision(self, avatar_id: str) -> str:
        """Returns a word that changes when the bundle is replaced.

        Raises:
            NotFoundError: There is no such avatar.
        """
        revision = self._look(avatar_id)
        if revision is None and avatar_id in self._entries:
            time.sleep(REPLACED_WITHIN_S)
            revision = self._look(avatar_id)
        if revision is not None:
            return revision
        if (entry := self._entries.pop(avatar_id, None)) is not None:
            self._vanished.append(entry)
            self.on_change(avatar_id)
        raise NotFoundError(
            f"There is no avatar '{avatar_id}'; the gateway lists those there are.",
            reason="AVATAR_NOT_FOUND",
        )

    def _look(self, avatar_id: str) -> str | None:
        try:
            status = (self._store.path(avatar_id) / MANIFEST_NAME).stat()
        except (NotFoundError, FileNotFoundError):  # the latter: deleted since path() looked
            return None
        return f"{status.st_ino}-{status.st_mtime_ns}"
