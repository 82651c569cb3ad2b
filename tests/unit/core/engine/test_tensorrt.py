# SPDX-License-Identifier: Apache-2.0
"""What can be known of the TensorRT backend without TensorRT and without a GPU."""

import json
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from styleavatar_core.avatar.bundle import AvatarBundle, read_bundle
from styleavatar_core.engine.backends import OpeningAvatar
from styleavatar_core.engine.cache import EngineCache
from styleavatar_core.engine.freeze import freeze
from styleavatar_core.engine.onnx_graph import onnx_model
from styleavatar_core.engine.precision import with_precision
from styleavatar_core.engine.selection import open_engine
from styleavatar_core.engine.tensorrt_backend import open_tensorrt, plan_key
from styleavatar_core.engine.tensorrt_support import unsupported_parts
from styleavatar_core.errors import EngineUnavailableError
from styleavatar_core.networks import get_preset, sample_noise
from tests.fakes.nano_bundle import write_nano_bundle
from tests.fakes.networks import UntrainedAvatar
from tests.unit.core.engine.test_freeze import noisy_nano
from tools.tensorrt_facts import CONTROLS, FACTS, find_name, used_names

FOUND: dict[str, dict[str, bool]] = json.loads(FACTS.read_text())


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_the_facts_are_of_versions_10_and_11() -> None:
    assert sorted(version.split(".")[0] for version in FOUND) == ["10", "11"]


@pytest.mark.parametrize("version", FOUND)
def test_every_name_that_we_use_is_in_the_bindings(version: str) -> None:
    used = used_names()
    assert len(used) > 30
    assert set(used) | set(CONTROLS) == set(FOUND[version]), "run tools/tensorrt_facts.py again"
    assert [name for name in used if not FOUND[version][name]] == []


def test_names_that_are_gone_are_found_to_be_gone() -> None:
    old, new = (FOUND[version] for version in sorted(FOUND))
    assert not old["ICudaEngine.num_bindings"]
    assert old["NetworkDefinitionCreationFlag.EXPLICIT_BATCH"]
    assert not new["NetworkDefinitionCreationFlag.EXPLICIT_BATCH"]
    assert old["Refitter.get_tensors_with_dynamic_range"]
    assert not new["Refitter.get_tensors_with_dynamic_range"]
    assert not old["Refitter.release_refit_resources"]
    assert new["Refitter.release_refit_resources"]


def test_names_are_collected_from_the_source(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text(
        "network = builder.create_network(tensorrt.Flag.A)\n"
        "self._context.start(now=1)\n"
        "other.thing()\n"
    )
    assert used_names((source,)) == [
        "Builder.create_network",
        "Flag",
        "Flag.A",
        "IExecutionContext.start",
        "IExecutionContext.start:now",
    ]


def test_names_are_looked_up_with_their_class() -> None:
    bindings = b"_ZN8tensorrt10BuilderDocL5buildE\0Flag\0FP16\0loud\0"
    assert find_name(bindings, "Builder.build")
    assert find_name(bindings, "Flag.FP16")
    assert not find_name(bindings, "Runtime.build")
    assert not find_name(bindings, "Flag.FP8")
    assert find_name(bindings, "Builder.build:loud")
    assert not find_name(bindings, "Builder.build:quiet")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("make_config", [lambda: get_preset("lite"), noisy_nano])
def test_the_parser_takes_every_part_of_our_graphs(make_config, precision: str) -> None:
    avatar = UntrainedAvatar.make(make_config())
    noise = sample_noise(avatar.config, generator=torch.Generator().manual_seed(3))
    frozen = freeze(avatar.generator, avatar.style, avatar.face, avatar.background, noise=noise)
    assert unsupported_parts(onnx_model(with_precision(frozen, precision))) == []


def small_model(node: onnx.NodeProto, kind: int, out_kind: int) -> onnx.ModelProto:
    graph = helper.make_graph(
        [node],
        "small",
        [helper.make_tensor_value_info("x", kind, [1, 4, 4, 4])],
        [helper.make_tensor_value_info("y", out_kind, None)],
        [helper.make_tensor("half", TensorProto.FLOAT16, [1], [2.0])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize(
    ("node", "kind", "message"),
    [
        (helper.make_node("Erf", ["x"], ["y"]), TensorProto.FLOAT, "Erf is not supported"),
        (
            helper.make_node("Transpose", ["x"], ["y"], perm=[0, 2, 3, 1]),
            TensorProto.UINT8,
            "Transpose cannot take UINT8",
        ),
        (
            helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=2, mode="CRD"),
            TensorProto.INT32,
            "DepthToSpace cannot give INT32",
        ),
        (
            helper.make_node("Pad", ["x", "amounts"], ["y"], mode="reflect"),
            TensorProto.FLOAT,
            "mode may not be reflect",
        ),
        (
            helper.make_node("Conv", ["x", "x"], ["y"]),
            TensorProto.FLOAT,
            "input 1 must be a constant",
        ),
    ],
)
def test_what_the_parser_refuses_is_named(node: onnx.NodeProto, kind: int, message: str) -> None:
    model = small_model(node, kind, kind)
    if "amounts" in node.input:
        amounts = helper.make_tensor("amounts", TensorProto.INT64, [8], [0, 0, 1, 1, 0, 0, 1, 1])
        model.graph.initializer.append(amounts)
    assert any(message in problem for problem in unsupported_parts(model))


def test_without_the_libraries_it_is_said_so(bundle: AvatarBundle) -> None:
    with pytest.raises(EngineUnavailableError, match="needs tensorrt, which is not installed"):
        open_engine(bundle, "tensorrt")


def test_without_a_gpu_it_is_said_so(bundle: AvatarBundle, tmp_path: Path, no_gpu: None) -> None:
    with pytest.raises(EngineUnavailableError, match="needs a CUDA device"):
        open_tensorrt(OpeningAvatar(bundle, EngineCache(tmp_path), 2))


def test_avatars_of_one_architecture_share_a_plan_and_gpus_do_not(
    bundle: AvatarBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = read_bundle(write_nano_bundle(tmp_path / "other", seed=5))
    lite = read_bundle(write_nano_bundle(tmp_path / "lite", preset="lite"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")

    def key(avatar: AvatarBundle, version: str, capability: tuple[int, int]) -> str:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        return plan_key(OpeningAvatar(avatar, EngineCache(tmp_path), 2), version).file_name

    first = key(bundle, "10.16", (9, 0))
    assert key(other, "10.16", (9, 0)) == first
    assert len({first, key(lite, "10.16", (9, 0)), key(bundle, "11.4", (9, 0))}) == 3
    assert key(bundle, "10.16", (8, 6)) != first
