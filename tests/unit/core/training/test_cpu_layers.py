# SPDX-License-Identifier: Apache-2.0
"""Layers in few passes give what the layers that they stand for give, forward and backward."""

import copy

import pytest
import torch
from torch import nn

from benchmarks.training import _PHASE
from benchmarks.training_parts.plain import PlainTrainer
from styleavatar_core.networks.composition import FaceSampler, MaskConv
from styleavatar_core.networks.config import StyleConfig
from styleavatar_core.networks.equalized import EqualConv2d
from styleavatar_core.networks.feature_generator import FeatureMaps
from styleavatar_core.networks.layers import StyledConv, ToRGB
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.cpu import functions
from styleavatar_core.training.cpu.layers import with_fewer_passes
from styleavatar_core.training.samples.batches import BatchSampler
from styleavatar_core.training.samples.clips import Clip
from styleavatar_core.training.trainer import Trainer

_STYLE = StyleConfig()


def _assert_same(layer: nn.Module, *inputs: torch.Tensor | None) -> None:
    """Compares results and the gradients of all weights and inputs with the layer's own."""
    found = []
    for one in (copy.deepcopy(layer), with_fewer_passes(copy.deepcopy(layer))):
        given = [x if x is None else x.clone().requires_grad_() for x in inputs]
        results = one(*given)
        results = results if isinstance(results, tuple) else (results,)
        probes = [torch.randn(x.shape, generator=_generator(7)) for x in results]
        loss = torch.stack([(x * y).sum() for x, y in zip(results, probes, strict=True)]).sum()
        learned = [*(x for x in given if x is not None), *one.parameters()]
        found.append((*results, *torch.autograd.grad(loss, learned, allow_unused=True)))
    for wanted, ours in zip(*found, strict=True):
        assert (wanted is None) == (ours is None)
        if wanted is not None:
            torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=_generator(seed))


# Features of few floats stay on one thread; larger ones are shared by all.
@pytest.mark.parametrize("least_floats", [1, 2**19])
@pytest.mark.parametrize("doubles", [False, True])
def test_styled_conv(least_floats: int, doubles: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    monkeypatch.setattr(functions, "_LEAST_FLOATS", least_floats)
    torch.manual_seed(0)
    layer = StyledConv(_STYLE, 6, 8, doubles=doubles)
    layer.bias.data.normal_()
    for batch in (1, 2):
        _assert_same(layer, _random(batch, 6, 7, 9), _random(batch, _STYLE.style_dim, seed=1))


@pytest.mark.parametrize("taps", [None, (1.0, 1.0), (1.0, 3.0, 3.0, 1.0)])
def test_equal_conv(taps: tuple[float, ...] | None) -> None:
    torch.manual_seed(0)
    layer = EqualConv2d(6, 8, 3, gain=2**0.5, down_taps=taps)
    layer.bias.data.normal_()
    _assert_same(layer, _random(2, 6, 12, 8))


def test_noise_and_four_taps_are_served_as_before() -> None:
    layer = StyledConv(_STYLE, 6, 8, has_noise=True)
    layer.noise.weight.data.fill_(0.5)
    noise = _random(2, 1, 9, 9, seed=2)
    _assert_same(layer, _random(2, 6, 9, 9), _random(2, _STYLE.style_dim, seed=1), noise)
    layer = StyledConv(StyleConfig(taps=(1.0, 3.0, 3.0, 1.0)), 6, 8, doubles=True)
    _assert_same(layer, _random(2, 6, 9, 9), _random(2, _STYLE.style_dim, seed=1))


@pytest.mark.parametrize(("batch", "has_pixels"), [(2, True), (1, True), (2, False)])
def test_to_rgb(batch: int, has_pixels: bool) -> None:
    torch.manual_seed(0)
    layer = ToRGB(_STYLE, 6)
    layer.bias.data.normal_()
    pixels = _random(batch, 12, 5, 4, seed=2) if has_pixels else None
    x, style = _random(batch, 6, 10, 8), _random(batch, _STYLE.style_dim, seed=1)
    _assert_same(layer, x, style, pixels)


def test_mask_conv_takes_one_background_for_all() -> None:
    torch.manual_seed(0)
    layer = MaskConv(9, 1, 3, gain=None)
    layer.bias.data.normal_()
    _assert_same(layer, _random(2, 5, 6, 7), _random(1, 4, 6, 7, seed=1))
    _assert_same(layer, _random(2, 9, 6, 7))


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_face_sampler(mode: str) -> None:
    uv = torch.rand(2, 2, 12, 8, generator=_generator(3)) * 1.2 - 0.1  # beyond the borders too
    mask = (torch.rand(2, 1, 12, 8, generator=_generator(4)) * 1.5 - 0.5).clamp(0, 1)
    sampler = FaceSampler(mode, 2)

    class Looked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sampler = sampler

        def forward(self, feature: torch.Tensor, pack: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return self.sampler(FeatureMaps(feature, pack), uv, mask)

    _assert_same(Looked(), _random(1, 3, 6, 6), _random(1, 12, 6, 6, seed=1))


def test_gradients_of_gradients_are_refused() -> None:
    layer = with_fewer_passes(StyledConv(_STYLE, 6, 8))
    x = _random(2, 6, 8, 8).requires_grad_()
    (gradient,) = torch.autograd.grad(
        layer(x, _random(2, _STYLE.style_dim)).sum(), x, create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_gradients_of_a_step_are_those_of_the_plain_one(tiny_dataset, tiny_config) -> None:
    config = TrainConfig()
    batch = BatchSampler([Clip(tiny_dataset)], tiny_config, config).at_step(0)
    fast, plain = Trainer(tiny_config, config), PlainTrainer(tiny_config, config)
    fast.step(batch, None, _PHASE, 0)
    plain.step(batch, None, _PHASE, 0)
    wanted = dict(plain.networks.named_parameters())
    assert list(wanted) == [name for name, _ in fast.networks.named_parameters()]
    for name, weight in fast.networks.named_parameters():
        expected = wanted[name].grad
        assert torch.linalg.vector_norm(weight.grad - expected) <= 1e-4 * torch.linalg.vector_norm(
            expected
        ), name


def test_a_training_in_bf16_is_left_as_it_is(tiny_config) -> None:
    layers = {
        type(x) for x in Trainer(tiny_config, TrainConfig(precision="bf16")).networks.modules()
    }
    assert {StyledConv, ToRGB, MaskConv, FaceSampler} <= layers
