# SPDX-License-Identifier: Apache-2.0
"""What numba has compiled and cached is never older than the code it was made from."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import styleavatar_core.engine.cpu

FOLDER = Path(styleavatar_core.engine.cpu.__file__).parent
NARROW_PRODUCT = """
import numpy as np
from styleavatar_core.engine.cpu.block_code import BLOCK_COLUMNS, BLOCK_ROWS
from styleavatar_core.engine.cpu.product_kernels import multiply, multiply_pixels
assert (BLOCK_ROWS, BLOCK_COLUMNS) == (6, 16), BLOCK_COLUMNS
rng = np.random.default_rng(0)
sizes = (24, 24), (24, 32), (32,)
image, matrix, bias = (rng.normal(size=size).astype(np.float32) for size in sizes)
panels = np.ascontiguousarray(matrix.reshape(24, 2, 16).transpose(1, 0, 2))
result = np.empty((1, 24, 32), np.float32)
one = np.zeros(1, np.int64), np.array([0, 1])
multiply(image.reshape(-1), panels, result.reshape(-1), 24, *one, 0, 2)
np.testing.assert_allclose(result[0], image @ matrix, atol=1e-4)
for outputs in (32, 28, 20):
    result = np.full((21, outputs), np.nan, np.float32)
    multiply_pixels(image[:20], 0, 20, panels, bias, result[:20])
    np.testing.assert_allclose(result[:20], (image[:20] @ matrix + bias)[:, :outputs], atol=1e-4)
    assert np.isnan(result[20]).all()
"""


@pytest.mark.parametrize(
    "name",
    [
        "blur_kernels",
        "kernel_transforms",
        "level_kernels",
        "piece_kernels",
        "product_kernels",
        "tile_kernels",
    ],
)
def test_the_text_of_compiled_code_follows_what_it_is_made_from(name: str) -> None:
    # Numba compares the text of the file alone: old machine code would read new arrays.
    text = (FOLDER / f"{name}.py").read_text()
    sources, stated = re.search(r"^# Compiled from ([\w. ]+): (\w+)$", text, re.M).groups()
    imported = set(re.findall(r"^from styleavatar_core\.engine\.cpu\.(\w+) import", text, re.M))
    assert {f"{module}.py" for module in imported} <= set(sources.split())
    together = b"".join((FOLDER / source).read_bytes() for source in sources.split())
    digest = hashlib.sha256(together).hexdigest()[:8]
    assert stated == digest, f"write {digest} into that line of {name}.py"


def test_a_processor_with_narrow_vectors_multiplies_too(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_ENABLE_AVX": "0", "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", NARROW_PRODUCT], env=environment, check=True)
