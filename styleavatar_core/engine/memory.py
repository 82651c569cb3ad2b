# SPDX-License-Identifier: Apache-2.0
"""Keeps large tensors in the process between frames and between training steps.

glibc hands big blocks back to the kernel at every free and gets them again next time; on
virtual machines the page faults cost more than the arithmetic.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import sys

logger = logging.getLogger(__name__)

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tells glibc's allocator to keep what is freed; does nothing with another C library.

    Returns:
        Whether the allocator took it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # Not M_MMAP_MAX = 0: threads then have nowhere to go when their own heap (64 MiB) is full.
    taken = mallopt(_M_MMAP_THRESHOLD, _NEVER) == 1 and mallopt(_M_TRIM_THRESHOLD, _NEVER) == 1
    logger.debug("allocator keeps freed memory", extra={"taken": taken})
    return taken


def give_back_memory() -> None:
    """Hands what was freed, and what only cycles hold, back to the system and to the GPU."""
    gc.collect()
    torch = sys.modules.get("torch")  # what has not been imported holds nothing
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
