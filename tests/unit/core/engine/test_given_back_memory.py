# SPDX-License-Identifier: Apache-2.0
"""What a process held is really the system's again, in a process whose allocator keeps memory."""

import subprocess
import sys

SCRIPT = """
import resource
from pathlib import Path
import torch
from styleavatar_core.engine.memory import give_back_memory, keep_freed_memory

def held_mb():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20

keep_freed_memory()
before = held_mb()
ring = {"tensors": [torch.ones(2**20) for _ in range(100)]}  # 4 MiB each
ring["itself"] = ring  # only the collector can free it
full = held_mb()
del ring
kept = held_mb()
give_back_memory()
print(full - before, kept - before, held_mb() - before)
"""


def test_freed_memory_and_that_of_cycles_is_given_back():
    command = [sys.executable, "-c", SCRIPT]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    full, kept, after = map(float, result.stdout.split())
    assert full > 380
    assert kept > 380
    assert after < 40
