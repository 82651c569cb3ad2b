# SPDX-License-Identifier: Apache-2.0
"""Weights that overflow fp16 are scaled; all others are what they were, and so are the pictures."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from styleavatar_core.avatar.bundle import AvatarBundle, read_bundle, write_bundle
from styleavatar_core.engine.base import INPUT_NAMES
from styleavatar_core.engine.frozen.freeze import FrozenGenerator, freeze
from styleavatar_core.engine.frozen.half_range import LARGEST_SEEN, fit_half_range
from styleavatar_core.engine.frozen.layers import FrozenConv
from styleavatar_core.engine.frozen.peaks import seen_peaks
from styleavatar_core.engine.frozen.precision import with_precision
from styleavatar_core.engine.onnx.graph import onnx_model
from styleavatar_core.engine.selection import open_engine
from styleavatar_core.engine.tensorrt.support import unsupported_parts
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.evaluation.metrics import psnr
from styleavatar_core.export.parity import random_input
from styleavatar_core.networks import GeneratorConfig, get_preset, sample_noise
from styleavatar_core.networks.ablations import ABLATIONS
from styleavatar_core.networks.portrait_generator import PortraitGenerator
from tests.fakes.networks import UntrainedAvatar
from tests.unit.core.engine.test_freeze import noisy_nano

Frames = list[list[np.ndarray]]


def late_nano() -> GeneratorConfig:
    """Nano with the published skips, which join after a level, and an output without activation."""
    config = noisy_nano()
    foreground = replace(
        config.foreground,
        has_early_skips=False,
        has_final_activation=False,
        skip_sizes=config.foreground.skip_sizes[1:],
    )
    sizes = config.synthesis.skip_sizes[1:]
    synthesis = replace(config.synthesis, has_early_skips=False, skip_sizes=sizes)
    return replace(config, foreground=foreground, synthesis=synthesis)


def without_texture() -> GeneratorConfig:
    """Nano whose second network sees no face."""
    return ABLATIONS["no_neural_texture"](get_preset("nano"))


def without_composition() -> GeneratorConfig:
    """Nano that has one network, which sees the face only."""
    return ABLATIONS["dnr"](get_preset("nano"))


CONFIGS = [lambda: get_preset("nano"), noisy_nano, late_nano]


def explode(generator: PortraitGenerator) -> None:
    """Makes every encoder level give numbers beyond fp16, which those who take them make small."""
    factor = 2e5
    with torch.no_grad():
        for network in (generator.foreground, generator.synthesis):
            takers = [*(block.conv for block in list(network.encoder)[1:]), network.bottom]
            size = network.config.top_size
            for block, taker in zip(network.encoder, takers, strict=True):
                size //= 2
                givers = [block.down]
                if str(size) in network.from_rgbs:
                    givers.append(network.from_rgbs[str(size)].conv)
                for layer in givers:
                    layer.weight *= factor
                    layer.bias *= factor
                taker.weight /= factor
                if str(size) in network.joins:
                    network.joins[str(size)].weight[:, -taker.weight.shape[1] :] /= factor


def frozen(config: GeneratorConfig, *, exploded: bool) -> tuple[FrozenGenerator, Frames]:
    """An untrained generator and what it sees of a few frames."""
    avatar = UntrainedAvatar.make(config)
    if exploded:
        explode(avatar.generator)
    noise = sample_noise(config, generator=torch.Generator().manual_seed(3))
    generator = freeze(avatar.generator, avatar.style, avatar.face, avatar.background, noise=noise)
    engine = TorchEngine(copy.deepcopy(generator), device="meta")
    samples = [random_input(engine, seed=seed) for seed in range(2)]
    return generator, [[getattr(sample, name) for name in INPUT_NAMES] for sample in samples]


def pictures(generator: FrozenGenerator, frames: Frames) -> list[np.ndarray]:
    with torch.inference_mode():
        return [generator(*map(torch.from_numpy, arrays))[0].numpy() for arrays in frames]


@pytest.mark.parametrize("make_config", CONFIGS)
def test_exploded_weights_overflow_fp16_unless_they_are_scaled(make_config) -> None:
    generator, frames = frozen(make_config(), exploded=True)
    truth = pictures(generator, frames)
    plain = pictures(with_precision(generator, "fp16"), frames)
    scaled = pictures(with_precision(generator, "fp16", frames), frames)
    assert max(psnr(a, b) for a, b in zip(plain, truth, strict=True)) < 20
    assert min(psnr(a, b) for a, b in zip(scaled, truth, strict=True)) > 40


@pytest.mark.parametrize("make_config", CONFIGS)
def test_scaling_is_exact_in_fp32(make_config) -> None:
    generator, frames = frozen(make_config(), exploded=True)
    scaled = copy.deepcopy(generator)
    fit_half_range(scaled, seen_peaks(generator, frames))
    changed = [
        name
        for name, weight in generator.generator.named_parameters()
        if not torch.equal(weight, scaled.generator.get_parameter(name))
    ]
    assert len(changed) >= 10
    for ours, theirs in zip(pictures(scaled, frames), pictures(generator, frames), strict=True):
        assert np.array_equal(ours, theirs)
    largest = max(seen_peaks(scaled, frames).values())
    assert LARGEST_SEEN / 2 < largest <= LARGEST_SEEN < max(seen_peaks(generator, frames).values())


@pytest.mark.parametrize("make_config", CONFIGS)
def test_nothing_is_scaled_where_nothing_is_large(make_config) -> None:
    generator, frames = frozen(make_config(), exploded=False)
    before = copy.deepcopy(generator.state_dict())
    fit_half_range(generator, seen_peaks(generator, frames))
    after = generator.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("make_config", [*CONFIGS, without_texture, without_composition])
def test_every_layer_may_be_scaled(make_config, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if fp16 ended at 1: every layer is scaled, each in its own way, and pictures stay."""
    generator, frames = frozen(make_config(), exploded=False)
    monkeypatch.setattr("styleavatar_core.engine.frozen.half_range.LARGEST_SEEN", 2.0**-6)
    scaled = copy.deepcopy(generator)
    fit_half_range(scaled, seen_peaks(generator, frames))
    for name, layer in generator.generator.named_modules():
        if isinstance(layer, FrozenConv):
            assert not torch.equal(layer.bias, scaled.generator.get_submodule(name).bias), name
    for ours, theirs in zip(pictures(scaled, frames), pictures(generator, frames), strict=True):
        assert np.array_equal(ours, theirs)


def test_the_scaled_graph_has_the_plain_ones_parts() -> None:
    """One plan is refitted for all avatars, scaled or not."""
    generator, frames = frozen(late_nano(), exploded=True)
    plain = onnx_model(with_precision(generator, "fp16"))
    scaled = onnx_model(with_precision(generator, "fp16", frames))
    assert [node.op_type for node in plain.graph.node] == [n.op_type for n in scaled.graph.node]
    shapes = [
        {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        for model in (plain, scaled)
    ]
    assert shapes[0] == shapes[1]
    assert unsupported_parts(scaled) == []


def test_an_avatar_whose_weights_explode_is_opened_in_fp16(
    bundle: AvatarBundle, tmp_path: Path
) -> None:
    generator = PortraitGenerator(get_preset("nano"))
    generator.load_state_dict({name: torch.tensor(w) for name, w in bundle.generator().items()})
    explode(generator)
    path = write_bundle(
        tmp_path / "exploded",
        bundle.manifest,
        generator={name: value.numpy() for name, value in generator.state_dict().items()},
        features=bundle.features(),
        preview_jpeg=b"-",
    )
    engine = open_engine(read_bundle(path), "onnxruntime", precision="fp16", thread_count=1)
    assert engine.info.precision == "fp16", engine.info.note
