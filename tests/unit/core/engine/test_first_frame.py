# SPDX-License-Identifier: Apache-2.0
"""What is done, and what is left out, between a bundle on disk and its first picture."""

import weakref
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch

from styleavatar_core.avatar import bundle, bundle_files
from styleavatar_core.avatar.bundle import read_bundle
from styleavatar_core.avatar.manifest import BundleFile
from styleavatar_core.engine.avatar_renderer import AvatarRenderer
from styleavatar_core.engine.backends import automatic_backends
from styleavatar_core.engine.base import RenderEngine, RenderInput, RenderOutput, blank_input
from styleavatar_core.engine.cpu import layers
from styleavatar_core.engine.cpu.layers import with_less_work
from styleavatar_core.engine.frozen.freeze import FrozenGenerator
from styleavatar_core.engine.frozen.loading import load_frozen
from styleavatar_core.engine.onnx.graph import trace_generator
from styleavatar_core.engine.onnx.tracing import TracedGraph
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.errors import AssetError
from styleavatar_core.types import ByteArray
from tests.fakes.nano_bundle import write_nano_bundle


@pytest.mark.parametrize("place", [-1, 0, 20])  # in a tensor, in the header's length, in a name
@pytest.mark.parametrize("name", ["generator", "features"])
@pytest.mark.parametrize("backend", automatic_backends())
def test_damaged_tensors_are_refused(tmp_path: Path, backend: str, name: str, place: int) -> None:
    path = write_nano_bundle(tmp_path / "avatar")
    tensors = path / f"{name}.safetensors"
    contents = bytearray(tensors.read_bytes())
    contents[place] ^= 1
    tensors.write_bytes(contents)
    with pytest.raises(AssetError, match="its sha256 differs"):
        AvatarRenderer(path, backend=backend, thread_count=1)


def test_a_bundle_that_is_replaced_while_it_is_opened_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_nano_bundle(tmp_path / "avatar", seed=1)
    read_pieces = bundle_files.read_beside

    def replace_and_read(*arguments: Any) -> Future[tuple[ByteArray, Future[None]]]:
        monkeypatch.setattr(bundle, "read_beside", read_pieces)  # once
        write_nano_bundle(path, seed=2)
        return read_pieces(*arguments)

    monkeypatch.setattr(bundle, "read_beside", replace_and_read)
    renderer = AvatarRenderer(path, backend="torch", thread_count=1)
    assert renderer.digest == read_bundle(path).digest
    renderer.close()


@pytest.mark.parametrize("preset", ["nano", "lite"])
def test_a_frozen_generator_holds_nothing_of_the_file_that_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    read: list[weakref.ref[ByteArray]] = []
    read_pieces = bundle_files.read_beside

    def watch(path: Path, name: str, entry: BundleFile) -> Future[tuple[ByteArray, Future[None]]]:
        reading = read_pieces(path, name, entry)
        read.append(weakref.ref(reading.result()[0]))
        return reading

    monkeypatch.setattr(bundle, "read_beside", watch)
    path = write_nano_bundle(tmp_path / "avatar", preset=preset)
    frozen = load_frozen(read_bundle(path, verify=False))
    assert [contents() for contents in read] == [None, None]
    assert frozen.config.name == preset


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


def test_where_the_face_lies_in_a_table_its_maps_are_not_kept_beside_it(tmp_path: Path) -> None:
    path = write_nano_bundle(tmp_path / "avatar", preset="paper")
    generator = with_less_work(load_frozen(read_bundle(path, verify=False)))
    table = generator.generator.face_joiner.table
    kept = generator.face_feature.untyped_storage().nbytes()
    assert kept < 1e-3 * table.untyped_storage().nbytes()


def test_resolutions_are_traced_once_for_all_avatars_of_a_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced: list[FrozenGenerator] = []

    def watch(generator: FrozenGenerator) -> tuple[TracedGraph, dict[str, torch.Tensor]]:
        traced.append(generator)
        return trace_generator(generator)

    monkeypatch.setattr(layers, "_known", {})
    monkeypatch.setattr(layers, "trace_generator", watch)
    for preset, seed in (("lite", 0), ("lite", 1), ("nano", 2)):
        path = write_nano_bundle(tmp_path / str(seed), seed=seed, preset=preset)
        with_less_work(load_frozen(read_bundle(path, verify=False)))
    assert [generator.config.name for generator in traced] == ["lite", "nano"]
