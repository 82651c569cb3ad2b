# SPDX-License-Identifier: Apache-2.0
"""What is said and done where TensorRT gives no plan, or none that can be used."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from styleavatar_core.avatar.bundle import AvatarBundle
from styleavatar_core.engine.tensorrt import support
from styleavatar_core.errors import AssetError, EngineUnavailableError, RenderError
from styleavatar_core.export.parity import random_input
from tests.fakes.tensorrt_runtime import Faults
from tests.unit.core.engine.test_tensorrt_plans import assert_shows, open_tensorrt


def test_a_graph_that_the_parser_refuses_is_said_so_with_its_reason(
    bundle: AvatarBundle, faults: Faults
) -> None:
    faults.refuses_graphs = True
    with pytest.raises(AssetError, match="cannot read the graph: no importer for an operator"):
        open_tensorrt(bundle)
    assert not faults.configs


def test_a_graph_that_is_not_on_the_parsers_list_is_not_built(
    bundle: AvatarBundle, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(support.OPERATOR_TYPES, "Conv")
    with pytest.raises(AssetError, match=r"generator: .*Conv is not supported"):
        open_tensorrt(bundle)
    assert not faults.configs


def test_a_build_without_memory_leads_to_no_other_plan(
    bundle: AvatarBundle, faults: Faults, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as short_of_memory:
        short_of_memory.setattr(faults, "fails_to_build", True)
        short_of_memory.setattr(faults, "free_bytes", 2**30)
        with pytest.raises(MemoryError, match="for want of memory perhaps"):
            open_tensorrt(bundle)
    assert len(faults.configs) == 1
    assert not [*cache.glob("*.engine"), *cache.glob("*.txt")]
    assert open_tensorrt(bundle).info.precision == "fp16"


def test_a_build_that_fails_with_memory_left_is_the_graphs_fault(
    bundle: AvatarBundle, faults: Faults
) -> None:
    faults.fails_to_build = True
    with pytest.raises(AssetError, match="could not build an engine from the graph"):
        open_tensorrt(bundle)
    assert len(faults.configs) == 4  # shared and own, in fp16 and fp32


def test_a_plan_is_kept_though_there_is_no_memory_to_load_it(
    bundle: AvatarBundle, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as short_of_memory:
        short_of_memory.setattr(faults, "free_bytes", 100_000)
        with pytest.raises(MemoryError, match="failed to allocate memory"):
            open_tensorrt(bundle, precision="fp32")
    assert_shows(open_tensorrt(bundle, precision="fp32"), bundle)
    assert len(faults.configs) == 1


def test_bindings_without_their_libraries_are_told(
    bundle: AvatarBundle, faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.11: no such file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt")
    with pytest.raises(EngineUnavailableError, match=r"cannot be loaded: libnvinfer\.so\.11"):
        open_tensorrt(bundle)


def test_where_no_plan_gives_the_pictures_it_is_said(bundle: AvatarBundle, faults: Faults) -> None:
    faults.spoils_refits = faults.spoils_plans = True
    with pytest.raises(EngineUnavailableError, match=r"fp16 gives .* fp32 gives .* choose another"):
        open_tensorrt(bundle)


def test_a_frame_that_fails_is_said_and_the_next_one_comes(
    bundle: AvatarBundle, faults: Faults
) -> None:
    engine = open_tensorrt(bundle, precision="fp32")
    good = random_input(engine)
    bad = type(good)(good.texture_rendering[:, :-2], good.uv_rendering, good.face_mask)
    with pytest.raises(RenderError):
        engine.render(bad)
    assert_shows(engine, bundle)
