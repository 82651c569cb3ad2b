# SPDX-License-Identifier: Apache-2.0
"""What kind of processor this is: what was measured or made on one does not hold for others."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import platform
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")


@functools.cache
def processor_kind() -> str:
    """Returns the processor's name and, as virtual machines name many alike, its instructions.

    Returns:
        Such as ``AMD EPYC 1f0c9a2b``; the digits stand for what ``/proc/cpuinfo`` lists.
    """
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in _CPU_INFO.read_text().splitlines():
            name, _, value = line.partition(":")
            found.setdefault(name.strip(), value.strip())  # of the first core
    instructions = found.get("flags") or found.get("Features", "")
    digits = hashlib.sha256(instructions.encode()).hexdigest()[:8]
    name = found.get("model name") or platform.processor() or platform.machine()
    return f"{name} {digits}"
