# SPDX-License-Identifier: Apache-2.0
import os
import re
import subprocess
import sys

import pytest

from styleavatar_core.training.rehearsal import is_out_of_memory

# Memory is limited to what a batch of 16 has taken, so that 16 fit and 48 do not. Trials have one
# thread, as the training has: a further one takes 72 MB of addresses.
LIMITED = """
import resource, sys
from dataclasses import replace
from pathlib import Path
from styleavatar_core.errors import TrainingError
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.loop import train
from tests.fakes.prepared_clip import write_prepared_clip
from tests.fakes.tiny_bundle import tiny_config

folder = Path(sys.argv[1])
dataset = write_prepared_clip(folder / "dataset")
config = TrainConfig(step_count=2, batch_size=16, adversarial_start=0.0)
train([dataset], tiny_config(), config, folder / "unlimited")
pages, resident = map(int, Path("/proc/self/statm").read_text().split()[:2])
limit = pages * resource.getpagesize() + (16 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    train([dataset], tiny_config(), replace(config, batch_size=48), folder / "limited")
except TrainingError as error:
    print(error.reason, error)
    # While sizes were tried this process held less than after the training that went well.
    print(int(Path("/proc/self/statm").read_text().split()[1]) / resident)
"""


def test_want_of_memory_gives_a_batch_size_that_fits(tmp_path):
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=one_thread)
    match = re.match(
        r"OUT_OF_MEMORY memory does not suffice .* with 48 pictures at a time; (\d+) at a time "
        r"fit \(tried just now\): go on with --batch-size \1,",
        result.stdout,
    )
    assert match, result.stdout + result.stderr
    assert 8 <= int(match[1]) < 48
    assert float(result.stdout.splitlines()[1]) < 0.95


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"), True),
        (RuntimeError("FIND was unable to find an engine to execute this computation"), True),
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_want_of_memory_is_told_from_other_errors(error, expected):
    assert is_out_of_memory(error) is expected
