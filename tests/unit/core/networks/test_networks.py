# SPDX-License-Identifier: Apache-2.0
"""Shapes, gradients and counts of the networks."""

import pytest
import torch
from torch import nn

from styleavatar_core.networks import (
    Discriminator,
    FeatureGenerator,
    PortraitGenerator,
    ablate,
    get_preset,
    sample_noise,
)
from tests.fakes.networks import UntrainedAvatar


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_paper_preset_has_the_published_parameter_counts() -> None:
    config = get_preset("paper")
    with torch.device("meta"):
        assert count(FeatureGenerator(config.face)) == 21_167_430
        assert count(FeatureGenerator(config.background)) == 21_167_430
        assert count(PortraitGenerator(config)) == 47_462_093
        assert count(Discriminator(config.discriminator)) == 27_771_841


def test_hd_has_the_right_shapes() -> None:
    config = get_preset("hd")
    size, uv_size = config.rendering_size_px, config.uv_size
    with torch.device("meta"), torch.no_grad():
        style = torch.empty(1, config.style.style_dim)
        face = FeatureGenerator(config.face).eval()(style)
        background = FeatureGenerator(config.background).eval()(style)
        generator = PortraitGenerator(config)
        mapped = generator.mapping(style)
        canvas_px = size * config.canvas_size // config.feature_size
        feature, pixels = generator.foreground(mapped, torch.empty(1, 3, canvas_px, canvas_px))
    assert feature.shape[2:] == (config.canvas_size,) * 2
    assert pixels.shape[1:] == (12, *(config.canvas_size,) * 2)
    assert background.feature.shape[1] == feature.shape[1]
    assert face.rgb_pack.shape == (1, 12, config.face.size, config.face.size)
    assert uv_size == config.feature_size * config.uv_supersampling


def test_batch_shares_static_maps_and_every_parameter_learns() -> None:
    config = get_preset("nano")
    torch.manual_seed(0)
    networks = nn.ModuleDict(
        {
            "generator": PortraitGenerator(config),
            "face": FeatureGenerator(config.face),
            "background": FeatureGenerator(config.background),
        }
    )
    avatar = UntrainedAvatar.make(config)
    face, background = networks["face"](avatar.style), networks["background"](avatar.style)
    output = networks["generator"](
        avatar.style.expand(2, -1),
        **avatar.inputs(2),
        face=face,
        background=background,
        window=torch.tensor([[3, -4], [0, config.maximum_offset]]),
    )
    assert output.image.shape == (2, 3, 128, 128)
    assert output.mask.shape == (2, 1, config.feature_size, config.feature_size)
    assert output.mask.min() > 0
    assert output.mask.max() < 1
    (output.image.square().mean() + output.mask.mean()).backward()
    silent = [
        name
        for name, parameter in networks.named_parameters()
        if parameter.grad is None or not torch.isfinite(parameter.grad).all()
    ]
    assert silent == []


def test_samples_of_a_batch_do_not_touch_each_other() -> None:
    avatar = UntrainedAvatar.make(get_preset("nano"))
    inputs = avatar.inputs(2)
    window = torch.tensor([[5, -7], [-12, 16]])
    with torch.no_grad():
        both = avatar.generator(
            avatar.style.expand(2, -1),
            **inputs,
            face=avatar.face,
            background=avatar.background,
            window=window,
        )
        alone = avatar.generator(
            avatar.style,
            **{name: value[1:] for name, value in inputs.items()},
            face=avatar.face,
            background=avatar.background,
            window=window[1:],
        )
    torch.testing.assert_close(both.image[1:], alone.image, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("variant", ["full", "published_mask"])
def test_background_window_moves_the_background_alone(variant: str) -> None:
    avatar = UntrainedAvatar.make(ablate(get_preset("nano"), variant))
    with torch.no_grad():
        still, moved = (
            avatar.generator(
                avatar.style,
                **avatar.inputs(1),
                face=avatar.face,
                background=avatar.background,
                window=torch.zeros(1, 2, dtype=torch.int64),
                background_window=torch.tensor([offset]),
            )
            for offset in ([0, 0], [8, 0])
        )
    assert not torch.allclose(still.image, moved.image, atol=1e-2)
    # A mask that is told by the background, too, stays where the clip had the person.
    assert torch.equal(still.mask, moved.mask) == (variant == "full")


def test_noise_reaches_the_image_of_a_preset_that_has_it() -> None:
    config = get_preset("paper")
    noise = sample_noise(config, generator=torch.Generator().manual_seed(0))
    assert noise is not None
    assert noise.foreground.shape == (1, 21, 256, 256)
    assert sample_noise(get_preset("lite")) is None


def test_discriminator_scores_each_sample_and_sees_the_rendering() -> None:
    config = get_preset("nano").discriminator
    torch.manual_seed(0)
    discriminator = Discriminator(config)
    image = torch.randn(2, 3, 128, 128, requires_grad=True)
    rendering = torch.randn(2, 3, 128, 128)
    score = discriminator(image, rendering)
    assert score.shape == (2, 1)
    assert not torch.allclose(score, discriminator(image, -rendering))
    # R1 needs a second derivative, also through the activations in place.
    (gradient,) = torch.autograd.grad(score.sum(), image, create_graph=True)
    gradient.square().sum().backward()
    assert discriminator.blocks[0].conv.weight.grad is not None


def test_training_of_our_presets_starts_from_a_nearly_grey_image() -> None:
    avatar = UntrainedAvatar.make(get_preset("nano"))
    with torch.no_grad():
        image = avatar.generator(
            avatar.style,
            **avatar.inputs(1),
            face=avatar.face,
            background=avatar.background,
            window=torch.zeros(1, 2, dtype=torch.int64),
        ).image
    assert 0 < image.abs().mean() < 0.5
