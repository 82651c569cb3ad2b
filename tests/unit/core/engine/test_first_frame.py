# SPDX-License-Identifier: Apache-2.0
"""What is done, and what is left out, between a bundle on disk and its first picture."""

from pathlib import Path

import pytest

from styleavatar_core.engine.avatar_renderer import AvatarRenderer
from styleavatar_core.engine.base import RenderEngine, RenderInput, RenderOutput, blank_input
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.errors import AssetError
from tests.fakes.nano_bundle import write_nano_bundle


@pytest.mark.parametrize("place", [-1, 0, 20])  # in a tensor, in the header's length, in a name
def test_damaged_weights_are_refused(tmp_path: Path, place: int) -> None:
    path = write_nano_bundle(tmp_path / "avatar")
    weights = path / "generator.safetensors"
    contents = bytearray(weights.read_bytes())
    contents[place] ^= 1
    weights.write_bytes(contents)
    with pytest.raises(AssetError, match="its sha256 differs"):
        AvatarRenderer(path, backend="torch", thread_count=1)


def test_only_the_first_avatar_of_a_process_is_rendered_before_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[TorchEngine] = []
    render = TorchEngine._render

    def watch(self: TorchEngine, inputs: RenderInput) -> RenderOutput:
        rendered.append(self)
        return render(self, inputs)

    monkeypatch.setattr(TorchEngine, "_render", watch)
    monkeypatch.setattr(RenderEngine, "_warm", set())
    for seed in (0, 1):
        path = write_nano_bundle(tmp_path / str(seed), seed=seed)
        renderer = AvatarRenderer(path, backend="torch", thread_count=1)
        assert len(rendered) == 1
    last = renderer._engine
    assert last.render(blank_input(last.info)).image.any()
