# SPDX-License-Identifier: Apache-2.0
"""Where finished avatars and the files of running jobs live: plain folders.

A bundle appears in the artifact store in one step, so a reader sees all of it or nothing; that
is all that trainer, gateway and rendering need to agree on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import time
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory

from styleavatar_core.avatar.placing import put_in_place, sync
from styleavatar_core.errors import NotFoundError

logger = logging.getLogger(__name__)

MANIFEST_NAME = "avatar.json"
_ID_PATTERN = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_ODD_CHARACTERS = re.compile(r"[^\w.-]")
_NAME_BYTES_LIMIT = 240  # file systems take 255
_HIDDEN = "."
# Hidden folders that a living process may be at work on for so long; others are left behind.
_KEPT_S = {"upload": 24 * 3600, "incoming": 3600, "packed": 24 * 3600}


def new_id(kind: str) -> str:
    """Returns a fresh id such as ``avatar-3f9c12ab77d0``, fit for a folder name and a URL."""
    return f"{kind}-{uuid.uuid4().hex[:12]}"


def is_valid_id(candidate: str) -> bool:
    """Says whether a name from outside may be used as an id (and so as a folder name)."""
    return _ID_PATTERN.fullmatch(candidate) is not None


def safe_file_name(name: str) -> str:
    """Returns a file name from outside without folders and odd characters, cut to its end."""
    cleaned = _ODD_CHARACTERS.sub("_", name.replace("\\", "/").rsplit("/", 1)[-1])
    end = cleaned.encode()[-_NAME_BYTES_LIMIT:].decode(errors="ignore")
    return end.lstrip(".") or "video"


class AvatarStore:
    """Finished avatars: one folder per avatar id, each an avatar bundle.

    Attributes:
        root: Folder of the store; made on first use.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, avatar_id: str) -> Path:
        """Returns the folder of an avatar.

        Raises:
            NotFoundError: There is no such avatar.
        """
        if not self.exists(avatar_id):
            raise NotFoundError(
                f"there is no avatar {avatar_id!r}; GET /v1/avatars lists those there are",
                reason="AVATAR_NOT_FOUND",
            )
        return self.root / avatar_id

    def exists(self, avatar_id: str) -> bool:
        """Says whether an avatar is finished and in the store."""
        return is_valid_id(avatar_id) and (self.root / avatar_id / MANIFEST_NAME).is_file()

    def list(self) -> list[str]:
        """Returns the ids of all finished avatars, sorted; one that cannot be read is left out."""
        found = []
        for entry in self.root.iterdir() if self.root.is_dir() else ():
            try:
                if self.exists(entry.name):
                    found.append(entry.name)
            except OSError as error:  # such as one that was restored as another user
                extra = {"avatar_id": entry.name, "reason": str(error)}
                logger.warning("an avatar cannot be read", extra=extra)
        return sorted(found)

    def publish(self, bundle_folder: Path, avatar_id: str) -> Path:
        """Moves a written bundle into the store under its id, replacing an older one.

        Args:
            bundle_folder: Folder of a complete bundle; gone afterwards.
            avatar_id: Id under which it is served from now on.

        Returns:
            The folder in the store.

        Raises:
            OSError: It cannot be written.
        """
        if not is_valid_id(avatar_id):
            raise ValueError(f"not an avatar id: {avatar_id!r}")
        self.root.mkdir(parents=True, exist_ok=True)
        incoming = self._hidden("incoming")
        os.utime(bundle_folder)  # nobody's leftover
        try:
            shutil.move(bundle_folder, incoming)  # may copy, when on another file system
        except OSError:  # no room is left for the half of it either
            shutil.rmtree(incoming, ignore_errors=True)
            raise
        target = self.root / avatar_id
        put_in_place(incoming, target)
        logger.info("avatar published", extra={"avatar_id": avatar_id})
        return target

    def delete(self, avatar_id: str) -> bool:
        """Removes an avatar and its files; says whether there was one."""
        target = self.root / avatar_id
        if not is_valid_id(avatar_id) or not target.is_dir():
            return False
        _remove_atomically(target, self._hidden("trash"))
        logger.info("avatar deleted", extra={"avatar_id": avatar_id})
        return True

    def room_to_pack(self) -> TemporaryDirectory[str]:
        """Returns a hidden folder for the zip of an avatar; ``with`` gives its path, then ends it.

        One that a killed process leaves is swept after a day.
        """
        return TemporaryDirectory(
            prefix=f"{_HIDDEN}packed-", dir=self.root, ignore_cleanup_errors=True
        )

    def sweep(self) -> None:
        """Removes half-done deletions, what was being published an hour ago, and old zips."""
        _sweep(self.root)

    def _hidden(self, purpose: str) -> Path:
        return self.root / f"{_HIDDEN}{purpose}-{uuid.uuid4().hex}"


class JobFolders:
    """Files of training jobs: one folder per job id with the upload and all that is made of it.

    Attributes:
        root: Folder of all job folders; made on first use.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, job_id: str) -> Path:
        """Returns the folder of a job, whether or not it exists."""
        if not is_valid_id(job_id):
            raise ValueError(f"not a job id: {job_id!r}")
        return self.root / job_id

    def upload(self, job_id: str, video_name: str) -> Path:
        """Returns where the uploaded video lies, under the name that its job has for it."""
        return self.folder(job_id) / "upload" / safe_file_name(video_name)

    def work(self, job_id: str) -> Path:
        """Returns the folder of dataset, checkpoints and the bundle in the making."""
        return self.folder(job_id) / "work"

    def new_upload_folder(self) -> Path:
        """Returns a fresh hidden folder that an upload is written into until it is accepted."""
        folder = self.root / f"{_HIDDEN}upload-{uuid.uuid4().hex}"
        folder.mkdir(parents=True)
        return folder

    def accept_upload(self, upload_folder: Path, job_id: str) -> None:
        """Makes a hidden upload folder that of a job, by one rename; no power cut loses it then."""
        folder = self.folder(job_id)
        for part in (*upload_folder.iterdir(), upload_folder):
            sync(part)
        folder.mkdir()
        upload_folder.rename(folder / "upload")
        for part in (folder, self.root):
            sync(part)

    def sweep(self) -> None:
        """Removes half-done deletions, and uploads that were broken off more than a day ago."""
        _sweep(self.root)

    def list(self) -> list[str]:
        """Returns the ids of all jobs that have files."""
        if not self.root.is_dir():
            return []
        return sorted(entry.name for entry in self.root.iterdir() if is_valid_id(entry.name))

    def delete(self, job_id: str) -> None:
        """Removes the upload, the dataset and the checkpoints of a job."""
        folder = self.folder(job_id)
        if folder.is_dir():
            _remove_atomically(folder, self.root / f"{_HIDDEN}trash-{uuid.uuid4().hex}")


def _remove_atomically(folder: Path, trash: Path) -> None:
    """Takes a folder out of sight by one rename, then removes it; others may be doing the same."""
    with contextlib.suppress(FileNotFoundError):
        folder.rename(trash)
    _remove(trash)


def _remove(folder: Path) -> None:
    """Removes a folder to its last file, though what others remove just now is not found."""
    while folder.exists():
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)


def _sweep(root: Path) -> None:
    """Removes hidden folders that nobody works on any more."""
    for entry in root.iterdir() if root.is_dir() else ():
        if not entry.name.startswith(_HIDDEN) or not entry.is_dir():
            continue
        purpose = entry.name.removeprefix(_HIDDEN).partition("-")[0]
        try:
            if time.time() - entry.lstat().st_mtime > _KEPT_S.get(purpose, 0):
                _remove(entry)
        except FileNotFoundError:  # accepted, or somebody else removes it
            continue
        except OSError as error:
            logger.error(
                "what was deleted or broken off cannot be removed; remove the folder by hand",
                extra={"folder": str(entry), "reason": str(error)},
            )
