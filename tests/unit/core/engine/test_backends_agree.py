# SPDX-License-Identifier: Apache-2.0
"""Whatever the network and its weights, every backend for CPUs gives the same pictures."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from styleavatar_core.engine.base import RenderEngine, RenderInput
from styleavatar_core.engine.cpu import layers
from styleavatar_core.engine.frozen.freeze import can_take_samples, freeze
from styleavatar_core.engine.frozen.loading import make_lookup
from styleavatar_core.engine.onnx.graph import onnx_model, onnx_with_inputs
from styleavatar_core.engine.onnx.onnx_engine import OnnxEngine
from styleavatar_core.engine.onnx.openvino_engine import OpenVinoEngine
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.networks import TRIED, GeneratorConfig, sample_noise
from styleavatar_core.networks.presets import _fast
from tests.fakes.networks import UntrainedAvatar, published_options

INPUTS = 32


def drawn_config(rng: np.random.Generator) -> GeneratorConfig:
    """A network as our presets are or were, or with the options of the published one."""
    config = _fast(
        "drawn",
        int(rng.choice([64, 128])),
        base=4 * int(rng.integers(1, 5)),
        face_channels=int(rng.integers(1, 5)),
        levels=int(rng.integers(3, 5)),
        widths=tuple(8 * int(width) for width in rng.integers(1, 5, 4)),
    )
    if rng.random() < 0.5:
        return published_options(config)
    if rng.random() < 0.5:
        config = TRIED["finer_skips"](config)
    return replace(config, has_fused_rgb_output=bool(rng.random() < 0.5))


def drawn_input(config: GeneratorConfig, rng: np.random.Generator) -> RenderInput:
    """Any pixels, a disc of face somewhere, and UV coordinates that vary smoothly on it."""
    size, uv_size, texels = config.rendering_size_px, config.uv_size, config.face.size
    x, y = np.meshgrid(*2 * [(np.arange(uv_size) + 0.5) / uv_size])
    (left, top), radius = rng.uniform(0.2, 0.8, 2), rng.uniform(0.05, 0.5)
    mask = ((x - left) ** 2 + (y - top) ** 2 < radius**2).astype(np.uint8)
    slopes, start = rng.uniform(-0.7, 0.7, (2, 2)), rng.uniform(0, 1, 2)
    uv = np.clip(np.stack([x, y], axis=2) @ slopes + start, 0, 1)
    if config.uv_sampling == "nearest":  # halfway between texels the runtimes may round either way
        texel = np.minimum(np.floor(uv * texels), texels - 1)
        uv = (texel + rng.uniform(0.2, 0.8, uv.shape)) / texels
    return RenderInput(
        rng.integers(0, 256, (1, size, size, 3), dtype=np.uint8),
        (uv * mask[..., None]).astype(np.float32)[None],
        mask[None],
    )


@pytest.mark.parametrize("seed", range(6))
def test_drawn_networks_give_the_same_pictures(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if seed % 2:  # every convolution in tiles that can be
        monkeypatch.setattr(layers, "_LEAST_CHANNELS", 1)
        monkeypatch.setattr(layers, "_LEAST_FLOP", 1)
    rng = np.random.default_rng(seed)
    config = drawn_config(rng)
    avatar = UntrainedAvatar.make(config, seed=seed)
    noise = sample_noise(config, generator=torch.Generator().manual_seed(seed))
    parts = (avatar.generator, avatar.style, avatar.face, avatar.background)
    frozen = freeze(*parts, noise=noise)
    lookup = make_lookup(avatar.face) if can_take_samples(config) else None
    on_host = freeze(*parts, noise=noise, samples_face=lookup is None)
    exported, model = (onnx_model(part).SerializeToString() for part in (frozen, on_host))
    others: list[RenderEngine] = [
        OnnxEngine(exported, thread_count=1),
        OnnxEngine(model, thread_count=1, lookup=lookup),
        *(
            kind.compile(*onnx_with_inputs(on_host), thread_count=1, lookup=lookup)
            for kind in (OnnxEngine, OpenVinoEngine)
        ),
        TorchEngine(on_host, thread_count=1, lookup=lookup),
    ]
    reference = TorchEngine(frozen, thread_count=1)
    for _ in range(INPUTS):
        sample = drawn_input(config, rng)
        expected = reference.render(sample)
        assert expected.image.std() > 1
        for engine in others:
            output = engine.render(sample)
            error = np.abs(output.image.astype(int) - expected.image)
            # One step of uint8: two runtimes may round a value between two steps differently.
            assert error.max() <= 1, engine.runtime
            assert error.mean() < 0.01, engine.runtime
            assert np.abs(output.mask.astype(int) - expected.mask).max() <= 1, engine.runtime
