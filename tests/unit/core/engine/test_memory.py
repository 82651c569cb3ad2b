# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

PROGRAM = """
import ctypes, sys, threading
import numpy as np
from styleavatar_core.engine.memory import keep_freed_memory

assert keep_freed_memory()
sizes = []

def work():  # a thread's own heap ends at 64 MiB; more must still be had
    block = np.ones(25_000_000)
    sizes.append(block.nbytes)

thread = threading.Thread(target=work)
thread.start()
thread.join()
print(sizes)
"""


def test_threads_still_get_large_blocks():
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert result.stdout.strip() == "[200000000]", result.stderr
