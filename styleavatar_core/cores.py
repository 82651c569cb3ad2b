# SPDX-License-Identifier: Apache-2.0
"""How many processor cores this process may use."""

from __future__ import annotations

import os
from pathlib import Path

# Control groups, version 2: microseconds of processor time in each period of so many, or "max".
QUOTA_FILE = Path("/sys/fs/cgroup/cpu.max")


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
