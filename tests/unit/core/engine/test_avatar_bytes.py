# SPDX-License-Identifier: Apache-2.0
"""What an avatar takes is at least what its bundle holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from styleavatar_core.engine import avatar_renderer
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


def test_what_cuda_brings_to_the_process_is_no_avatars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    resident_gb = 1

    def ask_device() -> tuple[int, int]:
        nonlocal resident_gb
        resident_gb = 3  # the first question makes a context
        return 70 * 10**9, 80 * 10**9

    monkeypatch.setattr(avatar_renderer.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(avatar_renderer.torch.cuda, "mem_get_info", ask_device)
    monkeypatch.setattr(avatar_renderer, "_resident_bytes", lambda: resident_gb * 10**9)
    renderer = AvatarRenderer(
        write_nano_bundle(tmp_path / "avatar"), backend="onnxruntime", thread_count=1
    )
    assert renderer.memory_bytes < 1e9
    renderer.close()


def test_all_that_is_taken_of_a_gpu_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    free_gb = iter((10, 7))  # torch itself knows of none of it
    monkeypatch.setattr(avatar_renderer.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        avatar_renderer.torch.cuda, "mem_get_info", lambda: (next(free_gb) * 10**9, 80 * 10**9)
    )
    host_bytes = iter((3 * 10**9, 10**9))  # what the process gives back meanwhile does not
    monkeypatch.setattr(avatar_renderer, "_resident_bytes", lambda: next(host_bytes))
    path = write_nano_bundle(tmp_path / "avatar")
    renderer = AvatarRenderer(path, backend="onnxruntime", thread_count=1)
    assert renderer.engine_info.precision == "fp32"  # it runs on the CPU all the same
    assert renderer.memory_bytes >= 3e9
    renderer.close()
