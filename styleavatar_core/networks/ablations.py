# SPDX-License-Identifier: Apache-2.0
"""The ablations of the paper (Sec. 4.2, Table 3, Fig. 7) as settings over the one generator.

Sliding windows are a matter of training, not of the networks: ``MOVES_WINDOWS`` says which variants
train with them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from styleavatar_core.errors import InvalidInputError
from styleavatar_core.networks.config import (
    FeatureGeneratorConfig,
    GeneratorConfig,
    StyleUNetConfig,
)

MOVES_WINDOWS = frozenset({"full", "no_neural_texture"})


def _no_neural_texture(config: GeneratorConfig) -> GeneratorConfig:
    """The face has no static map: the foreground network draws it from the rendering."""
    joined = config.background.feature_channels
    return replace(
        config,
        has_neural_texture=False,
        face=_unused(config.face),
        synthesis=replace(config.synthesis, input_channels=joined),
    )


def _single_styleunet(config: GeneratorConfig) -> GeneratorConfig:
    """One StyleUNet from the texture rendering to the whole picture."""
    return replace(
        config,
        has_composition=False,
        has_neural_texture=False,
        has_fused_rgb_output=False,
        face=_unused(config.face),
        background=_unused(config.background),
        synthesis=_from_rendering(config.synthesis),
    )


def _dvp(config: GeneratorConfig) -> GeneratorConfig:
    """A plain UNet from the texture rendering to the picture, as Deep Video Portraits."""
    single = _single_styleunet(config)
    return replace(single, synthesis=_plain(single.synthesis))


def _dnr(config: GeneratorConfig) -> GeneratorConfig:
    """A plain UNet from the face's neural texture to the picture, as Deferred Neural Rendering."""
    channels = config.face.feature_channels * config.uv_supersampling**2
    return replace(
        config,
        has_composition=False,
        has_fused_rgb_output=False,
        background=_unused(config.background),
        synthesis=_plain(replace(config.synthesis, input_channels=channels)),
    )


def _from_rendering(unet: StyleUNetConfig) -> StyleUNetConfig:
    """Lets a network start from an image pack where it started from a feature."""
    return replace(unet, input_channels=0)


def _plain(unet: StyleUNetConfig) -> StyleUNetConfig:
    """Takes the style out of a network: what remains is a UNet."""
    return replace(unet, style=replace(unet.style, is_modulated=False))


def _unused(generator: FeatureGeneratorConfig) -> FeatureGeneratorConfig:
    """Returns the smallest static map, for a part that nothing samples."""
    return replace(generator, base_size=4, base_channels=1, channels=(1,))


ABLATIONS: dict[str, Callable[[GeneratorConfig], GeneratorConfig]] = {
    "full": lambda config: config,
    "no_neural_texture": _no_neural_texture,
    "no_sliding_window": lambda config: config,
    "single_styleunet": _single_styleunet,
    "dvp": _dvp,
    "dnr": _dnr,
}


def ablate(config: GeneratorConfig, variant: str) -> GeneratorConfig:
    """Returns a preset with a part of the method taken out.

    Args:
        config: The preset.
        variant: One of ``ABLATIONS``; ``full`` takes nothing out.

    Raises:
        InvalidInputError: There is no such variant.
    """
    if variant not in ABLATIONS:
        raise InvalidInputError(
            f"there is no variant '{variant}'; choose one of {', '.join(ABLATIONS)}"
        )
    ablated = ABLATIONS[variant](config)
    return ablated if variant == "full" else replace(ablated, name=f"{config.name}-{variant}")
