# SPDX-License-Identifier: Apache-2.0
"""The processor: how many of its cores this process may use, and of which kind they are."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
from pathlib import Path

# Control groups, version 2: microseconds of processor time in each period of so many, or "max".
QUOTA_FILE = Path("/sys/fs/cgroup/cpu.max")
_CPU_INFO = Path("/proc/cpuinfo")


def usable_core_count(quota_file: Path = QUOTA_FILE) -> int:
    """Returns how many cores this process may keep busy, at least 1.

    Containers see all cores of their node, but those of Docker's ``--cpus`` and of Kubernetes'
    limits are stopped when they have used up their quota.

    Args:
        quota_file: Where the quota stands; one that cannot be read is none.
    """
    count = len(os.sched_getaffinity(0))
    try:
        quota, period = quota_file.read_text().split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):
        return count


def processor_name() -> str:
    """Returns what the processor calls itself, such as ``AMD EPYC``."""
    return _cpu_info().get("model name") or platform.processor() or platform.machine()


@functools.cache
def processor_kind() -> str:
    """Returns the processor's name and, as virtual machines name many alike, its instructions.

    What was measured or made on one kind does not hold for others.

    Returns:
        Such as ``AMD EPYC 1f0c9a2b``; the digits stand for what ``/proc/cpuinfo`` lists.
    """
    info = _cpu_info()
    instructions = info.get("flags") or info.get("Features", "")
    digits = hashlib.sha256(instructions.encode()).hexdigest()[:8]
    return f"{processor_name()} {digits}"


def _cpu_info() -> dict[str, str]:
    """Returns what is listed of the first core; nothing where nothing is."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in _CPU_INFO.read_text().splitlines():
            name, _, value = line.partition(":")
            found.setdefault(name.strip(), value.strip())
    return found
