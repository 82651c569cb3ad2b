# SPDX-License-Identifier: Apache-2.0
"""Child processes that never outlive their parent, not even one that was killed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

# Videos of people, their consent and their likeness are nobody's but the service's.
PRIVATE_UMASK = 0o077
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(parent_pid: int | None = None) -> bool:
    """Asks the kernel to kill this process when its parent ends; does nothing but on Linux.

    The signal comes when the *thread* that started this process ends, so start children from
    threads that live as long as they do.

    Args:
        parent_pid: Process that should be the parent; None if it does not matter.

    Returns:
        False when that parent is already gone.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    return parent_pid is None or os.getppid() == parent_pid


def is_alive(pid: int) -> bool:
    """Says whether a process of this machine exists and is more than a zombie."""
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def memory_bytes() -> int:
    """Returns the resident memory of this process."""
    import psutil

    return int(psutil.Process().memory_info().rss)
