# SPDX-License-Identifier: Apache-2.0
"""What engines compute in: fp16 graphs, bf16 where the processor has it, and what is refused."""

import numpy as np
import pytest
import torch

from styleavatar_core.avatar.bundle import AvatarBundle
from styleavatar_core.engine import gate
from styleavatar_core.engine.frozen.freeze import freeze
from styleavatar_core.engine.frozen.precision import with_precision
from styleavatar_core.engine.gate import judge
from styleavatar_core.engine.onnx import openvino_engine
from styleavatar_core.engine.onnx.graph import onnx_model
from styleavatar_core.engine.onnx.onnx_engine import OnnxEngine
from styleavatar_core.engine.onnx.openvino_engine import OpenVinoEngine, computes_in_bf16
from styleavatar_core.engine.reference import render_reference
from styleavatar_core.engine.selection import open_engine
from styleavatar_core.errors import InvalidInputError
from styleavatar_core.export.parity import random_input
from styleavatar_core.networks import sample_noise
from tests.fakes.networks import UntrainedAvatar
from tests.unit.core.engine.test_freeze import noisy_nano


def test_fp16_graph_is_strongly_typed_with_exact_coordinates() -> None:
    avatar = UntrainedAvatar.make(noisy_nano())
    noise = sample_noise(avatar.config, generator=torch.Generator().manual_seed(3))
    frozen = freeze(avatar.generator, avatar.style, avatar.face, avatar.background, noise=noise)
    model = onnx_model(with_precision(frozen, "fp16"))
    half = OnnxEngine(model.SerializeToString(), thread_count=1, precision="fp16")
    verdict = judge(half, render_reference(frozen, None, random_input(half)))
    assert verdict.is_accepted, verdict.reason
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    weights = [kind for name, kind in types.items() if name.endswith("weight")]
    assert weights
    assert set(weights) == {10}  # TensorProto.FLOAT16


def test_bf16_is_used_where_the_processor_has_it(
    bundle: AvatarBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gate.LEAST_PSNR_DB, "bf16", 30.0)  # untrained masks come near 45
    engine = open_engine(bundle, "openvino", precision="bf16", thread_count=1)
    if computes_in_bf16():
        assert engine.info.precision == "bf16"
        assert engine.info.note.startswith("bf16 gives")
        exact = open_engine(bundle, "openvino", precision="fp32", thread_count=1)
        sample = random_input(exact)
        assert not np.array_equal(engine.render(sample).image, exact.render(sample).image)
    else:
        assert engine.info.precision == "fp32"
        assert "this processor does not compute in bf16" in engine.info.note


def test_without_instructions_for_bf16_the_next_safer_is_used(
    bundle: AvatarBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_engine, "computes_in_bf16", lambda: False)
    engine = open_engine(bundle, "openvino", precision="bf16", thread_count=1)
    assert engine.info.precision == "fp32"
    assert engine.info.note.startswith("bf16 could not be opened: this processor does not compute")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_openvino_rounds_to_bf16_only_if_that_is_asked(
    bundle: AvatarBundle, precision: str
) -> None:
    # By itself it does so wherever the processor has instructions for it.
    for _ in ("compiled", "loaded from the cache"):
        engine = open_engine(bundle, "openvino", precision=precision, thread_count=1)
        assert isinstance(engine, OpenVinoEngine)
        assert "f32" in str(engine._model.get_property("INFERENCE_PRECISION_HINT").to_string())


@pytest.mark.parametrize("precision", ["fp8", "int8", "bf16"])
def test_precision_that_torch_does_not_have_is_refused(
    bundle: AvatarBundle, precision: str
) -> None:
    with pytest.raises(InvalidInputError, match=f"precision '{precision}'"):
        open_engine(bundle, "torch", precision=precision)
