# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime with constants that lie outside of the graph."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from styleavatar_core.engine.frozen.freeze import FrozenGenerator, freeze
from styleavatar_core.engine.frozen.precision import with_precision
from styleavatar_core.engine.onnx.constants import with_constants
from styleavatar_core.engine.onnx.graph import onnx_model, onnx_with_inputs
from styleavatar_core.engine.onnx.onnx_engine import OnnxEngine
from styleavatar_core.export.parity import random_input
from tests.fakes.networks import UntrainedAvatar
from tests.unit.core.engine.test_freeze import noisy_nano


def frozen_nano(precision: str) -> FrozenGenerator:
    avatar = UntrainedAvatar.make(noisy_nano(), seed=4)
    frozen = freeze(avatar.generator, avatar.style, avatar.face, avatar.background)
    return with_precision(frozen, precision)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_constants_are_the_engines_for_as_long_as_it_lives(precision: str) -> None:
    complete = OnnxEngine(onnx_model(frozen_nano(precision)).SerializeToString(), thread_count=1)
    sample = random_input(complete)
    expected = complete.render(sample)
    model, constants = onnx_with_inputs(frozen_nano(precision))
    sizes = [array.size for array in constants.values()]
    engine = OnnxEngine.compile(model, constants, thread_count=1)
    del model, constants
    gc.collect()
    others = [torch.full((size,), 1e6) for size in sizes]  # where what is gone has been
    output = engine.render(sample)
    assert np.array_equal(output.image, expected.image)
    assert np.array_equal(output.mask, expected.mask)
    assert len(others) == len(sizes)


def test_a_graph_with_its_constants_is_another_and_lacks_none() -> None:
    model, constants = onnx_with_inputs(frozen_nano("fp32"))
    before = model.SerializeToString()
    complete = with_constants(model, constants)
    assert model.SerializeToString() == before
    assert {info.name for info in model.graph.input} == set(constants) | {
        info.name for info in complete.graph.input
    }
    held = {tensor.name: tensor for tensor in complete.graph.initializer}
    for name, array in constants.items():
        found = np.frombuffer(held[name].raw_data, np.float32).reshape(tuple(held[name].dims))
        assert np.array_equal(found, array)
