# SPDX-License-Identifier: Apache-2.0
"""A container's quota of processor time bounds the cores that a service counts on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from styleavatar_core.cores import usable_core_count

HERE = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000\n", HERE),
        ("100000 100000\n", 1),
        ("50000 100000\n", 1),
        ("100000000 100000\n", HERE),
        ("nonsense", HERE),
    ],
)
def test_cores_are_those_of_the_machine_within_the_quota(
    tmp_path: Path, quota: str, expected: int
) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(quota)
    assert usable_core_count(path) == expected


def test_where_no_quota_is_told_there_is_none(tmp_path: Path) -> None:
    assert usable_core_count(tmp_path / "absent") == HERE
