# SPDX-License-Identifier: Apache-2.0
"""A folder takes the place of another; whoever dies meanwhile leaves all of one of them."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from styleavatar_core.avatar import placing
from styleavatar_core.avatar.placing import put_in_place
from tests.fakes.dying import DEAD, run_until

PLACING = """
from styleavatar_core.avatar.placing import put_in_place
put_in_place(first, second)
"""


def folder(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "file").write_text(text)
    return path


def test_the_first_of_a_name_and_the_next(tmp_path: Path) -> None:
    path = tmp_path / "anna"
    for text in ("1", "2"):
        put_in_place(folder(tmp_path / ".new", text), path)
        assert (path / "file").read_text() == text
        assert list(tmp_path.iterdir()) == [path]


def test_a_file_system_that_cannot_exchange_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(first: Path, second: Path) -> None:
        raise OSError(errno.EINVAL, "not here")

    monkeypatch.setattr(placing, "_exchange", refuse)
    path = folder(tmp_path / "anna", "1")
    put_in_place(folder(tmp_path / ".new", "2"), path)
    assert (path / "file").read_text() == "2"
    assert list(tmp_path.iterdir()) == [path]


def test_one_of_the_two_is_whole_whenever_the_process_dies(tmp_path: Path) -> None:
    path = folder(tmp_path / "anna", "old")
    code, step, found = DEAD, 0, []
    while code == DEAD:
        step += 1
        new = folder(tmp_path / f".new-{step}", "new")
        code = run_until(step, PLACING, new, path)
        found.append((path / "file").read_text())
    # Died before the old one was removed, and while it was.
    assert (code, found) == (0, ["new"] * step)
    assert step > 2
