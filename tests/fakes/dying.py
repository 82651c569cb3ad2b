# SPDX-License-Identifier: Apache-2.0
"""Processes that end themselves amid work on files, as a kill would end them."""

import subprocess
import sys
from pathlib import Path

DEAD = 9
_BEGINNING = """
import os, sys
from pathlib import Path

left = int(sys.argv[1])

def die(event, _):
    global left
    if event in ("os.rename", "os.rmdir", "os.remove", "shutil.rmtree"):
        left -= 1
        if left == 0:
            os._exit(9)

sys.addaudithook(die)
first, second = map(Path, sys.argv[2:])
"""


def run_until(step: int, code: str, first: Path, second: Path) -> int:
    """Runs code that ends before the step of that number that changes a name or removes files.

    It finds its two paths as ``first`` and ``second``. Returns ``DEAD``, or 0 if it came through.
    """
    command = [sys.executable, "-c", _BEGINNING + code, str(step), first, second]
    return subprocess.run(command, check=False).returncode
