# SPDX-License-Identifier: Apache-2.0
"""Avatars of one preset have one graph, in which nothing of any of them need be."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from onnx import ModelProto, numpy_helper

from styleavatar_core.engine.frozen.freeze import freeze
from styleavatar_core.engine.frozen.precision import with_precision
from styleavatar_core.engine.onnx.graph import onnx_model
from styleavatar_core.engine.onnx.onnx_engine import OnnxEngine
from styleavatar_core.engine.tensorrt.shared_graph import impersonal, structure_digest, weight_names
from styleavatar_core.networks import GeneratorConfig, get_preset, sample_noise
from tests.fakes.networks import UntrainedAvatar
from tests.unit.core.engine.test_freeze import noisy_nano


def graph_of(
    config: GeneratorConfig, seed: int, precision: str = "fp32", *, is_silent: bool = False
) -> ModelProto:
    avatar = UntrainedAvatar.make(config, seed)
    for name, parameter in avatar.generator.named_parameters():
        if is_silent and name.endswith("noise.weight"):
            parameter.data.zero_()
    noise = sample_noise(config, generator=torch.Generator().manual_seed(0))
    frozen = freeze(avatar.generator, avatar.style, avatar.face, avatar.background, noise=noise)
    return onnx_model(with_precision(frozen, precision))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("make_config", [lambda: get_preset("nano"), noisy_nano])
def test_two_avatars_of_a_preset_have_one_structure(make_config, precision: str) -> None:
    first, second = (graph_of(make_config(), seed, precision) for seed in (1, 2))
    assert structure_digest(first) == structure_digest(second)
    assert first.SerializeToString() != second.SerializeToString()


def test_another_preset_precision_or_dropped_layer_is_another_structure() -> None:
    config = noisy_nano()
    digests = {
        structure_digest(graph_of(config, 1)),
        structure_digest(graph_of(config, 1, "fp16")),
        structure_digest(graph_of(config, 1, is_silent=True)),
        structure_digest(graph_of(get_preset("nano"), 1)),
    }
    assert len(digests) == 4


def test_a_graph_that_computes_or_counts_otherwise_is_another_structure() -> None:
    model = graph_of(get_preset("nano"), 1)
    other_slope, other_number = (copy.deepcopy(model) for _ in range(2))
    node = next(node for node in other_slope.graph.node if node.op_type == "LeakyRelu")
    node.attribute[0].f = 0.5
    names = set(weight_names(model))
    number = next(part for part in other_number.graph.initializer if part.name not in names)
    number.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(number) + 1, number.name))
    assert len({structure_digest(graph) for graph in (model, other_slope, other_number)}) == 3


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_nothing_of_a_person_is_left_in_what_outlives_them(precision: str) -> None:
    model = graph_of(noisy_nano(), 1, precision)
    shared = impersonal(model)
    assert structure_digest(shared) == structure_digest(model)
    own = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    left = [
        tensor.name
        for tensor in shared.graph.initializer
        if np.array_equal(numpy_helper.to_array(tensor), own[tensor.name])
    ]
    other = {
        tensor.name: tensor for tensor in graph_of(noisy_nano(), 2, precision).graph.initializer
    }
    # Whatever is left is the same in another avatar, too.
    assert left
    for name in left:
        assert np.array_equal(numpy_helper.to_array(other[name]), own[name]), name
    # Weights of each kind are gone: a layer's, a map's, a strength of noise.
    for part in ("weight", "bias", "feature", "noise_strength"):
        assert any(part in name for name in own)
        assert not any(part in name for name in left)
    assert OnnxEngine(shared.SerializeToString(), thread_count=1).info.image_size_px == 128
