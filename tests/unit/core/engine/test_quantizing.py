# SPDX-License-Identifier: Apache-2.0
"""A graph of eight bits rounds what it should; that it runs and passes is in ``test_gate``."""

from pathlib import Path

import pytest
from onnx import ModelProto, TensorProto, checker

from styleavatar_core.avatar.bundle import AvatarBundle
from styleavatar_core.engine.cache import EngineCache
from styleavatar_core.engine.frozen.parts import FrozenParts
from styleavatar_core.engine.gate import judge
from styleavatar_core.engine.onnx.onnx_engine import OnnxEngine
from styleavatar_core.engine.onnx.openvino_engine import OpenVinoEngine
from styleavatar_core.engine.opening import OpeningAvatar
from styleavatar_core.engine.reference import reference_of
from styleavatar_core.engine.tensorrt.support import unsupported_parts
from styleavatar_core.engine.typical_inputs import typical_inputs
from styleavatar_core.evaluation.metrics import psnr


@pytest.fixture(scope="module")
def model(bundle: AvatarBundle, tmp_path_factory: pytest.TempPathFactory) -> ModelProto:
    cache = EngineCache(tmp_path_factory.mktemp("engines"))
    return OpeningAvatar(FrozenParts(bundle), cache, 1, "int8").device_onnx()


def test_wide_convolutions_are_rounded_and_nothing_else(model: ModelProto) -> None:
    checker.check_model(model, full_check=True)
    made_by = {output: node for node in model.graph.node for output in node.output}
    convolutions = [node for node in model.graph.node if node.op_type.startswith("Conv")]
    rounded = [node for node in convolutions if node.input[1].endswith(".rounded")]
    assert 10 < len(rounded) < len(convolutions)
    for node in rounded:
        assert made_by[node.input[0]].op_type == made_by[node.input[1]].op_type
        assert made_by[made_by[node.input[0]].input[0]].op_type == "QuantizeLinear"
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for node in rounded:
        name = node.input[1].removesuffix(".rounded")
        assert kinds[f"{name}.int8"] == TensorProto.INT8
        assert name not in kinds  # the exact weight is not kept beside it
    assert not any("to_rgb" in node.input[1] for node in rounded)
    assert not any("foreground" in node.input[1] for node in rounded)


def test_runtimes_of_cpus_agree_on_what_is_rounded(bundle: AvatarBundle, tmp_path: Path) -> None:
    frozen, cache = FrozenParts(bundle), EngineCache(tmp_path)
    graph = OpeningAvatar(frozen, cache, 1, "int8").onnx()
    shown = typical_inputs(bundle.manifest, frozen.info, 1, seed=3)[0]
    how = {"thread_count": 1, "precision": "int8", "lookup": frozen.lookup}
    pictures = [
        engine.render(shown).image[0].copy()
        for engine in (
            OnnxEngine(graph.SerializeToString(), **how),
            OpenVinoEngine.compile(graph, {}, **how),
        )
    ]
    assert psnr(*pictures) > 50


def test_the_parser_of_tensorrt_takes_it(model: ModelProto) -> None:
    assert unsupported_parts(model) == []


def test_on_a_gpu_all_the_rest_is_fp16(model: ModelProto, bundle: AvatarBundle) -> None:
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    weights = {name: kind for name, kind in kinds.items() if name.endswith((".weight", ".bias"))}
    scales = {name: kind for name, kind in kinds.items() if name.endswith((".scale", ".scales"))}
    assert set(weights.values()) == set(scales.values()) == {TensorProto.FLOAT16}
    engine = OnnxEngine(model.SerializeToString(), thread_count=1, precision="int8")
    verdict = judge(engine, reference_of(FrozenParts(bundle), EngineCache(), 1))
    assert verdict.is_accepted, verdict.reason
