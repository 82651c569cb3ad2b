# SPDX-License-Identifier: Apache-2.0
"""Moved windows beside an engine on a GPU that cannot move its own, with stand-ins for both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from styleavatar_core.engine import backends, host_renderer
from styleavatar_core.engine.avatar_renderer import AvatarRenderer
from styleavatar_core.engine.cuda.stream import Work
from styleavatar_core.engine.frozen.freeze import FrozenGenerator
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.evaluation.moves import shift_head
from tests.fakes.host_stream import HostStream
from tests.fakes.tensorrt_runtime import Faults
from tests.unit.core.engine.test_avatar_renderer import (
    face,
    moved_by_networks,
    write_narrow_bundle,
)

SHARE = (0.25, -0.125)


class SharedStream(HostStream):
    """A stream of all avatars: what one captures must not meet what another runs on it."""

    def capture(self, work: Work) -> Work | None:
        assert host_renderer._WARMING_UP.locked()
        return super().capture(work)


@pytest.fixture
def opened(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> list[TorchEngine]:
    """The engines that torch opens, on a device as far as our code can see."""
    engines: list[TorchEngine] = []
    shared = SharedStream()

    def open_one(
        generator: FrozenGenerator, *, device: str, stream: HostStream, code_folder: Path | None
    ) -> TorchEngine:
        assert (device, code_folder) == ("cuda", None)  # what moves its window is not compiled
        engines.append(TorchEngine(generator, stream=stream))
        return engines[-1]

    monkeypatch.setattr(backends, "TorchEngine", open_one)
    monkeypatch.setattr(host_renderer, "stream_beside", lambda: shared)
    return engines


def test_they_take_half_the_weights_and_one_stream_for_all_avatars(
    opened: list[TorchEngine], tmp_path: Path
) -> None:
    paths = [write_narrow_bundle(tmp_path / name, seed) for seed, name in enumerate("ab")]
    renderers = [AvatarRenderer(path, backend="tensorrt") for path in paths]
    assert [engine.info.precision for engine in opened] == ["fp16", "fp16"]
    assert all("at least the 45 dB asked for" in engine.info.note for engine in opened)
    assert opened[0].stream is opened[1].stream is host_renderer.stream_beside()
    for path, renderer in zip(paths, renderers, strict=True):
        assert renderer.engine_info.backend == "tensorrt"
        wanted = moved_by_networks(path, face(0.2), SHARE)
        image = renderer.render(shift_head(face(0.2), SHARE)).image
        assert np.abs(image.astype(int) - wanted).max() <= 4
    renderers[0].close()
    assert np.array_equal(renderers[1].render(shift_head(face(0.2), SHARE)).image, image)
    renderers[1].close()


def test_beside_an_engine_in_fp32_they_are_fp32(opened: list[TorchEngine], tmp_path: Path) -> None:
    path = write_narrow_bundle(tmp_path / "avatar")
    renderer = AvatarRenderer(path, backend="tensorrt", precision="fp32")
    assert [engine.info.precision for engine in opened] == ["fp32"]
    renderer.close()
