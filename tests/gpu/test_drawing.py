# SPDX-License-Identifier: Apache-2.0
"""Frames that are drawn on a GPU: one by one, in batches, and with windows that move."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from styleavatar_core.engine.avatar_renderer import AvatarRenderer
from styleavatar_core.engine.cuda.stream import CudaStream
from styleavatar_core.evaluation.metrics import psnr
from styleavatar_core.evaluation.moves import shift_head
from tests.unit.core.engine.test_avatar_renderer import face, write_narrow_bundle

SHARES = [(0.0, 0.0), (0.25, -0.125), (0.0, 0.0), (-0.125, 0.0)]


@pytest.mark.parametrize("backend", ["torch", "tensorrt"])
def test_pictures_are_those_of_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    path = write_narrow_bundle(tmp_path / "avatar")
    on_cpu = AvatarRenderer(path, backend="onnxruntime", thread_count=4)
    on_gpu = AvatarRenderer(path, backend=backend)

    def fail(*given: object) -> None:
        raise AssertionError("a live frame was captured")

    monkeypatch.setattr(CudaStream, "capture", fail)
    heads = [shift_head(face(0.2), share) for share in SHARES]
    wanted = on_cpu.render_batch(heads)
    for count in (1, 2, 3, 4):
        frames = on_gpu.render_batch(heads[:count])
        for ours, theirs in zip(frames, wanted, strict=False):
            assert psnr(ours.image, theirs.image) > 40
            assert psnr(ours.mask, theirs.mask) > 40
    # A face's edge may be drawn a pixel further; the heads are a quarter of the picture apart.
    assert psnr(wanted[0].image, wanted[1].image) < 30
    on_gpu.close()
    on_cpu.close()
