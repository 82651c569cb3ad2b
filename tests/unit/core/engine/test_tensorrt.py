# SPDX-License-Identifier: Apache-2.0
"""What can be known of the TensorRT backend without TensorRT and without a GPU."""

import importlib.util
import sys
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from styleavatar_core.avatar.bundle import AvatarBundle, read_bundle
from styleavatar_core.engine.backends import engine_key
from styleavatar_core.engine.cache import EngineCache
from styleavatar_core.engine.frozen.freeze import freeze
from styleavatar_core.engine.frozen.parts import FrozenParts
from styleavatar_core.engine.frozen.precision import with_precision
from styleavatar_core.engine.onnx.graph import onnx_model
from styleavatar_core.engine.opening import OpeningAvatar
from styleavatar_core.engine.selection import open_engine
from styleavatar_core.engine.tensorrt.backend import open_tensorrt, plan_key
from styleavatar_core.engine.tensorrt.support import unsupported_parts
from styleavatar_core.errors import EngineUnavailableError
from styleavatar_core.networks import (
    FeatureMaps,
    GeneratorConfig,
    PortraitGenerator,
    get_preset,
    sample_noise,
)
from tests.fakes import tensorrt_runtime
from tests.fakes.nano_bundle import write_nano_bundle
from tests.unit.core.engine.test_freeze import noisy_nano


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def graph_of(config: GeneratorConfig, precision: str) -> onnx.ModelProto:
    """Returns the graph of a network with any weights: tracing needs no arithmetic."""
    with torch.device("meta"):
        generator = PortraitGenerator(config)
    generator.to_empty(device="cpu")
    for parameter in generator.parameters():
        parameter.data.fill_(0.01)  # a strength of noise that is not zero, among others
    maps = [
        FeatureMaps(
            torch.zeros(1, part.feature_channels, part.size, part.size),
            torch.zeros(1, 12, part.size, part.size),
        )
        for part in (config.face, config.background)
    ]
    style = torch.zeros(1, config.style.style_dim)
    noise = sample_noise(config, generator=torch.Generator().manual_seed(3))
    frozen = freeze(generator, style, *maps, noise=noise, is_used_up=True)
    return onnx_model(with_precision(frozen, precision))


@pytest.mark.parametrize(
    ("name", "precision"),
    [("nano", "fp16"), ("lite", "fp32"), ("hd", "fp16"), ("paper", "fp16")],
)
def test_the_parser_takes_every_part_of_our_graphs(name: str, precision: str) -> None:
    assert unsupported_parts(graph_of(get_preset(name), precision)) == []


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_parser_takes_what_the_published_topology_uses(precision: str) -> None:
    assert unsupported_parts(graph_of(noisy_nano(), precision)) == []


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
            helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.2, beta=1.0),
            TensorProto.FLOAT,
            "beta of LeakyRelu is not supported",
        ),
        (
            helper.make_node("Conv", ["x", "x"], ["y"]),
            TensorProto.FLOAT,
            "input 1 must be a constant",
        ),
        (
            helper.make_node("Mul", ["x", "half"], ["y"]),
            TensorProto.FLOAT,
            "Mul mixes types, which strong typing forbids",
        ),
    ],
)
def test_what_the_parser_refuses_is_named(node: onnx.NodeProto, kind: int, message: str) -> None:
    model = small_model(node, kind, kind)
    if "amounts" in node.input:
        amounts = helper.make_tensor("amounts", TensorProto.INT64, [8], [0, 0, 1, 1, 0, 0, 1, 1])
        model.graph.initializer.append(amounts)
    assert any(message in problem for problem in unsupported_parts(model))


@pytest.mark.parametrize(
    ("kind", "out_kind", "is_taken"),
    [
        (TensorProto.UINT8, TensorProto.FLOAT16, True),
        (TensorProto.FLOAT, TensorProto.UINT8, True),
        (TensorProto.UINT8, TensorProto.INT64, False),
        (TensorProto.INT32, TensorProto.UINT8, False),
    ],
)
def test_bytes_become_floats_only_and_come_from_them(
    kind: int, out_kind: int, is_taken: bool
) -> None:
    node = helper.make_node("Cast", ["x"], ["y"], to=out_kind)
    assert (unsupported_parts(small_model(node, kind, out_kind)) == []) == is_taken


def test_without_the_libraries_it_is_said_so(
    bundle: AvatarBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorrt" else find(name)
    )
    with pytest.raises(EngineUnavailableError, match="needs tensorrt, which is not installed"):
        open_engine(bundle, "tensorrt")


def test_without_a_gpu_it_is_said_so(bundle: AvatarBundle, tmp_path: Path, no_gpu: None) -> None:
    with pytest.raises(EngineUnavailableError, match="needs a CUDA device"):
        open_tensorrt(OpeningAvatar(FrozenParts(bundle), EngineCache(tmp_path), 2))


def test_versions_gpus_and_presets_have_plans_of_their_own(
    bundle: AvatarBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lite = read_bundle(write_nano_bundle(tmp_path / "lite", preset="lite"))
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_runtime)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")

    def key(avatar: AvatarBundle, version: str, capability: tuple[int, int]) -> str:
        monkeypatch.setattr(tensorrt_runtime, "__version__", version)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        opening = OpeningAvatar(FrozenParts(avatar), EngineCache(tmp_path), 2)
        model = opening.device_onnx()
        return plan_key(engine_key(opening, "tensorrt"), model, is_shared=True).file_name

    names = {
        key(bundle, "10.16", (9, 0)),
        key(lite, "10.16", (9, 0)),
        key(bundle, "11.4", (9, 0)),
        key(bundle, "10.16", (8, 6)),
    }
    assert len(names) == 4
    assert not [name for name in names if name.startswith(bundle.digest[:32])]
