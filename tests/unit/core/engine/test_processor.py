# SPDX-License-Identifier: Apache-2.0
"""Processors are told apart by what they can do, not only by their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from styleavatar_core import cores
from styleavatar_core.avatar.bundle import AvatarBundle
from styleavatar_core.cores import processor_kind
from styleavatar_core.engine.backends import engine_key
from styleavatar_core.engine.cache import EngineCache
from styleavatar_core.engine.frozen.parts import FrozenParts
from styleavatar_core.engine.opening import OpeningAvatar


@pytest.fixture
def as_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def tell(*lines: str) -> str:
        info = tmp_path / "cpuinfo"
        info.write_text("\n".join(lines))
        monkeypatch.setattr(cores, "_CPU_INFO", info)
        processor_kind.cache_clear()
        return processor_kind()

    yield tell
    processor_kind.cache_clear()


def test_processors_of_one_name_differ_by_their_instructions(as_told) -> None:
    first = as_told("model name\t: AMD EPYC", "flags\t\t: avx2", "model name\t: of core 2")
    second = as_told("model name\t: AMD EPYC", "flags\t\t: avx2 avx512_vnni")
    assert first.startswith("AMD EPYC ")
    assert second.startswith("AMD EPYC ")
    assert first != second
    assert as_told("processor : 0", "Features : neon") != as_told("processor : 0", "Features : sve")


def test_what_one_processor_made_is_not_used_by_another(as_told, bundle: AvatarBundle) -> None:
    avatar = OpeningAvatar(FrozenParts(bundle), EngineCache(), thread_count=1)
    keys = set()
    for flags in ("avx2", "avx2 avx512_vnni"):
        as_told("model name : AMD EPYC", f"flags : {flags}")
        keys.add(engine_key(avatar, "onnxruntime").file_name)
    assert len(keys) == 2
