# SPDX-License-Identifier: Apache-2.0
"""What an avatar takes is at least what its bundle holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from styleavatar_core.engine.avatar_renderer import AvatarRenderer
from tests.fakes.nano_bundle import write_nano_bundle


def test_every_avatar_counts_also_where_memory_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = write_nano_bundle(tmp_path / "avatar")
    stored_bytes = sum(file.stat().st_size for file in path.iterdir())
    for _ in range(2):
        renderer = AvatarRenderer(path, backend="torch", thread_count=1)
        assert renderer.memory_bytes >= stored_bytes
        renderer.close()
