# SPDX-License-Identifier: Apache-2.0
"""What all tests share: a marker by folder, and one short sample clip made once per session.

Tests of ``gpu/`` run if they are asked for (``-m gpu``), and no others then. All others see no GPU:
what they expect must not depend on the machine.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from styleavatar_core.sample.clip import SampleClip

TESTS = Path(__file__).resolve().parent
KINDS = ("unit", "integration", "e2e", "gpu")

# The same examples on every machine: a failure that CI shows can be repeated.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    """Hides GPUs, from started processes too, before anything looks for them."""
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks each test by the folder it lies in, so that none is without a kind.

    Where several processes share the tests, a file's stay together, and all that start servers run
    one after the other: they end processes and wait for what follows.
    """
    for item in items:
        kind = item.path.relative_to(TESTS).parts[0]
        if kind in KINDS:
            item.add_marker(kind)
        group = "servers" if kind in ("integration", "e2e") else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def sample_clip(tmp_path_factory: pytest.TempPathFactory) -> SampleClip:
    """A talking head with known parameters: 6 s, 25 frames per second, 256 pixels square."""
    from styleavatar_core.sample.clip import make_sample_clip

    path = tmp_path_factory.mktemp("sample") / "sample.mp4"
    return make_sample_clip(path, seconds=6.0, fps=25, size_px=256, seed=0)
