# SPDX-License-Identifier: Apache-2.0
"""Layers that do with less work give what plain convolutions give."""

import pytest
import torch

from styleavatar_core.engine import cpu_layers
from styleavatar_core.engine.cpu_layers import PhasedUpConv, WinogradConv, with_less_work
from styleavatar_core.engine.freeze import FrozenGenerator, freeze
from styleavatar_core.engine.frozen_layers import FrozenConv, FrozenNarrowConv
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.export.parity import random_input
from styleavatar_core.networks import sample_noise
from styleavatar_core.ops.upfirdn2d import IMAGE_TAPS
from tests.fakes.networks import UntrainedAvatar
from tests.unit.core.engine.test_freeze import noisy_nano

SHAPES = [(2, 5, 30, 37), (1, 3, 8, 8), (1, 16, 4, 33)]  # also not multiples of a tile


def make_conv(inputs: int, *, slope: float | None, doubles: bool = False) -> FrozenConv:
    return FrozenConv(
        torch.randn(6, inputs, 3, 3) / (9 * inputs) ** 0.5,
        torch.randn(6),
        slope=slope,
        noise_strength=0.3,
        up_taps=IMAGE_TAPS if doubles else None,
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("slope", [0.2, None])
@pytest.mark.parametrize("doubles", [False, True])
def test_less_work_is_the_same_convolution(
    shape: tuple[int, int, int, int], slope: float | None, doubles: bool
) -> None:
    conv = make_conv(shape[1], slope=slope, doubles=doubles)
    layer = PhasedUpConv(conv) if doubles else WinogradConv(conv)
    x = torch.randn(shape).to(memory_format=torch.channels_last)
    factor = 2 if doubles else 1
    noise = torch.randn(1, 1, factor * shape[2], factor * shape[3])
    for added in (None, noise):
        expected = conv(x, noise=added)
        torch.testing.assert_close(layer(x, noise=added), expected, atol=2e-5, rtol=1e-5)


def test_strips_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    conv, x = make_conv(7, slope=0.2), torch.randn(1, 7, 40, 24)
    whole = WinogradConv(conv)(x)
    monkeypatch.setattr(cpu_layers, "_STRIP_BYTES", 1)  # one row of tiles at a time
    torch.testing.assert_close(WinogradConv(conv)(x), whole, atol=1e-5, rtol=1e-5)


def test_rounding_errors_are_those_of_a_direct_convolution() -> None:
    torch.manual_seed(0)
    conv, x = make_conv(256, slope=None), torch.randn(1, 256, 32, 32)
    exact = FrozenConv(conv.weight.double(), conv.bias.double(), slope=None)(x.double())
    direct, less = ((layer(x) - exact).std() for layer in (conv, WinogradConv(conv)))
    assert less < 2 * direct


def test_a_convolution_to_one_channel_is_the_same_in_two_steps() -> None:
    conv = FrozenConv(torch.randn(1, 9, 3, 3), torch.randn(1), slope=None)
    x = torch.randn(2, 9, 6, 7)
    torch.testing.assert_close(FrozenNarrowConv(conv)(x), conv(x), atol=1e-5, rtol=1e-5)


def frozen_noisy_nano() -> FrozenGenerator:
    torch.manual_seed(5)
    avatar = UntrainedAvatar.make(noisy_nano())
    noise = sample_noise(avatar.config, generator=torch.Generator().manual_seed(3))
    return freeze(avatar.generator, avatar.style, avatar.face, avatar.background, noise=noise)


@torch.no_grad()
def test_a_whole_generator_with_less_work_gives_the_same_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sample = random_input(TorchEngine(frozen_noisy_nano()))
    inputs = [
        torch.from_numpy(array)
        for array in (sample.texture_rendering, sample.uv_rendering, sample.face_mask)
    ]
    expected = frozen_noisy_nano()(*inputs)
    monkeypatch.setattr(cpu_layers, "_LEAST_CHANNELS", 1)
    monkeypatch.setattr(WinogradConv, "least_size", 8)
    monkeypatch.setattr(PhasedUpConv, "least_size", 8)
    generator = with_less_work(frozen_noisy_nano())
    kinds = [type(layer) for layer in generator.modules()]
    assert kinds.count(WinogradConv) > 5
    assert kinds.count(PhasedUpConv) > 1
    for output, wanted in zip(generator(*inputs), expected, strict=True):
        assert (output.int() - wanted.int()).abs().max() <= 1


def test_small_layers_stay_as_they_are() -> None:
    generator = with_less_work(frozen_noisy_nano())
    assert not any(isinstance(layer, WinogradConv) for layer in generator.modules())
