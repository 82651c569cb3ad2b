# SPDX-License-Identifier: Apache-2.0
"""What people see on the error stream while MediaPipe is imported."""

from __future__ import annotations

import subprocess
import sys

# The message stands in for what native code may say that matters.
PROGRAM = """
import os, sys
from styleavatar_core.data import mediapipe_import
class Teller:
    def find_spec(self, name, path, target=None):
        if name == "mediapipe":
            os.write(2, b"there is little memory\\n")
sys.meta_path.insert(0, Teller())
assert mediapipe_import.import_mediapipe() is sys.modules["mediapipe"]
"""


def test_no_false_alarm_and_no_true_one_lost() -> None:
    command = [sys.executable, "-c", PROGRAM]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "there is little memory\n")


START = """
import os, time
import numpy as np
from styleavatar_core.data import matting
from styleavatar_core.tracking.landmarks import LandmarkDetector
frame = np.zeros((64, 64, 3), np.uint8)
detector, matter = LandmarkDetector(), matting.ForegroundMatting()
time.sleep(0.3)  # models are opened by threads
detector.detect(frame, 0.0)
matter.matte(frame)
os.write(2, b"there is little memory\\n")
"""


def test_models_start_without_a_word() -> None:
    command = [sys.executable, "-c", START]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "there is little memory\n")


def test_of_two_that_leave_lines_out_at_once_none_takes_the_others() -> None:
    program = (
        "import os, threading\n"
        "from styleavatar_core.data.native_stderr import lines_left_out\n"
        "def tell(name):\n"
        "    for _ in range(100):\n"
        "        with lines_left_out([b'noise']):\n"
        "            os.write(2, name + b' noise\\n' + name + b'\\n')\n"
        "threads = [threading.Thread(target=tell, args=(name,)) for name in (b'ann', b'bob')]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "os.write(2, b'end\\n')\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    told = result.stderr.splitlines()
    assert sorted(told[:-1]) == ["ann"] * 100 + ["bob"] * 100
    assert told[-1] == "end"


def test_the_error_stream_comes_back_after_a_failure() -> None:
    program = (
        "import os, tempfile\n"
        "from styleavatar_core.data.native_stderr import native_stderr_to\n"
        "with tempfile.TemporaryFile() as file:\n"
        "    try:\n"
        "        with native_stderr_to(file):\n"
        "            os.write(2, b'inside')\n"
        "            raise ValueError\n"
        "    except ValueError:\n"
        "        os.write(2, b'outside')\n"
        "    file.seek(0)\n"
        "    print(file.read().decode())\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("inside\n", "outside")
