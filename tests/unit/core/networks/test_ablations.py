# SPDX-License-Identifier: Apache-2.0
"""Each variant is the same generator with a part taken out, or done as published."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch

from styleavatar_core.engine.frozen.freeze import freeze
from styleavatar_core.errors import InvalidInputError
from styleavatar_core.networks import (
    ABLATIONS,
    PUBLISHED,
    TRIED,
    GeneratorConfig,
    ablate,
    get_preset,
    sample_noise,
)
from styleavatar_core.networks.layers import NoModulation
from tests.fakes.networks import UntrainedAvatar

VARIANTS = [*ABLATIONS, *PUBLISHED, *TRIED]
OTHERS = [name for name in VARIANTS if name != "full"]


def outputs(avatar: UntrainedAvatar, offset: tuple[int, int] = (0, 0), **changes: torch.Tensor):
    with torch.no_grad():
        return avatar.generator(
            avatar.style,
            **{**avatar.inputs(1), **changes},
            face=avatar.face,
            background=avatar.background,
            window=torch.tensor([offset]),
        )


@pytest.fixture(scope="module")
def avatars() -> dict[str, UntrainedAvatar]:
    return {name: UntrainedAvatar.make(ablate(get_preset("nano"), name)) for name in VARIANTS}


@pytest.mark.parametrize("variant", OTHERS)
def test_picture_and_mask_have_their_shapes_and_everything_learns(
    avatars: dict[str, UntrainedAvatar], variant: str
) -> None:
    avatar = avatars[variant]
    output = avatar.generator(
        avatar.style.expand(2, -1),
        **avatar.inputs(2),
        face=avatar.face,
        background=avatar.background,
        window=torch.tensor([[3, -4], [0, avatar.config.maximum_offset]]),
        noise=sample_noise(avatar.config, 2),
    )
    assert output.image.shape == (2, 3, 128, 128)
    assert output.mask.shape == (2, 1, avatar.config.feature_size, avatar.config.feature_size)
    assert output.mask.min() > 0
    assert output.mask.max() < 1
    (output.image.square().mean() + output.mask.mean()).backward()
    silent = {
        name
        for name, parameter in avatar.generator.named_parameters()
        if parameter.grad is None or not torch.isfinite(parameter.grad).all()
    }
    # A plain UNet has no style: the mapping of the code leads nowhere.
    expected = "mapping." if variant in ("dvp", "dnr") else "nothing"
    assert {name for name in silent if not name.startswith(expected)} == set()
    avatar.generator.zero_grad()


@pytest.mark.parametrize("offset", [(0, 0), (5, -8)])
@pytest.mark.parametrize("variant", OTHERS)
def test_frozen_equals_trained(
    avatars: dict[str, UntrainedAvatar], variant: str, offset: tuple[int, int]
) -> None:
    avatar = avatars[variant]
    trained = outputs(avatar, offset)
    frozen = freeze(avatar.generator, avatar.style, avatar.face, avatar.background, window=offset)
    with torch.no_grad():
        output = frozen.generator(
            frozen.style,
            **avatar.inputs(1),
            face=avatar.face,
            background=avatar.background,
            window=frozen.window,
        )
    scale = trained.image.std().item()
    torch.testing.assert_close(output.image / scale, trained.image / scale, atol=1e-4, rtol=0)
    torch.testing.assert_close(output.mask, trained.mask, atol=1e-4, rtol=0)


def reacts(avatar: UntrainedAvatar, name: str, change: Callable[[torch.Tensor], torch.Tensor]):
    changed = {name: change(avatar.inputs(1)[name])}
    return not torch.equal(outputs(avatar).image, outputs(avatar, **changed).image)


def test_each_variant_sees_what_it_should(avatars: dict[str, UntrainedAvatar]) -> None:
    sees_uv = {name for name, avatar in avatars.items() if reacts(avatar, "uv", lambda x: 1 - x)}
    assert sees_uv == {"full", "no_sliding_window", "no_adversarial", "dnr", *PUBLISHED, *TRIED}
    sees_rendering = {
        name for name, avatar in avatars.items() if reacts(avatar, "rendering", torch.neg)
    }
    assert sees_rendering == set(VARIANTS) - {"dnr"}
    has_style = {
        name
        for name, avatar in avatars.items()
        if not any(isinstance(m, NoModulation) for m in avatar.generator.synthesis.modules())
    }
    assert has_style == set(VARIANTS) - {"dvp", "dnr"}


def test_a_single_network_moves_with_the_window(avatars: dict[str, UntrainedAvatar]) -> None:
    # What a rendering moved by hand gives, the window gives, but for what leaves the frame.
    avatar = avatars["dvp"]
    step = 8  # texels: 16 pixels of the rendering, a whole texel at the network's bottom
    rendering = torch.full_like(avatar.inputs(1)["rendering"], -1.0)
    rendering[..., 40:80, 48:80] = 0.5
    moved = torch.full_like(rendering, -1.0)
    moved[..., 40:80, 48 - 2 * step : 80 - 2 * step] = 0.5
    by_window = outputs(avatar, (step, 0), rendering=rendering).image
    torch.testing.assert_close(by_window, outputs(avatar, rendering=moved).image)


@pytest.mark.parametrize("preset", ["paper", "paper+", "hd"])
@pytest.mark.parametrize("variant", OTHERS)
def test_larger_presets_have_the_variants_too(preset: str, variant: str) -> None:
    config = ablate(get_preset(preset), variant)
    assert config.name == f"{preset}-{variant}"
    assert GeneratorConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    uses_one_network = variant in ("single_styleunet", "dvp", "dnr")
    assert config.has_composition is not uses_one_network


def test_unknown_variant_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match="no_neural_texture, no_sliding_window"):
        ablate(get_preset("nano"), "no_hair")
