# SPDX-License-Identifier: Apache-2.0
"""Folders that take the place of others: at every moment all of the old one or all of the new."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
# What Linux says of file systems that cannot exchange names, some network file systems among them.
_NOT_SUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


def put_in_place(incoming: Path, path: Path) -> None:
    """Gives a finished folder its name; the one that had it before is removed.

    Its files are on disk before: a power cut afterwards loses nothing.

    The two exchange their names in one step: whoever reads meanwhile finds one of them, also when
    the process dies here, which leaves a folder too many behind and nothing else. Where the file
    system cannot do that, there is none of that name for a moment.

    Args:
        incoming: The finished folder, beside ``path``.
        path: Its name from now on.
    """
    for part in (*incoming.iterdir(), incoming):
        sync(part)
    old: Path | None = incoming
    try:
        _exchange(incoming, path)
    except FileNotFoundError:  # the first of its name
        incoming.rename(path)
        old = None
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
        old = incoming.with_name(f"{incoming.name}-old")
        path.rename(old)
        incoming.rename(path)
    sync(path.parent)
    if old is not None:
        with contextlib.suppress(FileNotFoundError):  # somebody sweeps
            shutil.rmtree(old)


def _exchange(first: Path, second: Path) -> None:
    """Exchanges two names, as Python's own library cannot."""
    renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    paths = (os.fsencode(first), os.fsencode(second))
    if renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(first), None, str(second))


def sync(path: Path) -> None:
    """Makes a file's contents, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
