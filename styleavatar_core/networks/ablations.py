# SPDX-License-Identifier: Apache-2.0
"""Variants of a preset for comparison, as settings over the one generator.

``ABLATIONS`` take a part of the method out (paper, Sec. 4.2, Table 3, Fig. 7). ``PUBLISHED`` put
back one thing that the published networks do otherwise than our own presets, to show what each
change is worth; ``TRIED`` is what was not worth its cost, and what older avatars have. What is a
matter of training, not of the networks, leaves the preset as it is:
``benchmarks/quality_parts/variants.py`` trains those variants otherwise.
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


def _finer_skips(config: GeneratorConfig) -> GeneratorConfig:
    """Every level of a StyleUNet but the lowest reaches its decoder."""
    return replace(
        config,
        foreground=_with_all_skips(config.foreground),
        synthesis=_with_all_skips(config.synthesis),
    )


def _halved_rendering(config: GeneratorConfig) -> GeneratorConfig:
    """The first StyleUNet sees the texture rendering at half its resolution."""
    return replace(config, foreground=replace(config.foreground, pack_channels=12))


def _nearest_texture(config: GeneratorConfig) -> GeneratorConfig:
    """The neural texture is looked up once per texel, without interpolation."""
    joined = config.background.feature_channels + config.face.feature_channels
    return replace(
        config,
        uv_sampling="nearest",
        uv_supersampling=1,
        synthesis=replace(config.synthesis, input_channels=joined),
    )


def _added_face(config: GeneratorConfig) -> GeneratorConfig:
    """The face's feature is added to what lies behind it: both need equally many channels."""
    joined = config.background.feature_channels
    channels = (*config.face.channels[:-1], joined // config.uv_supersampling**2)
    return replace(
        config,
        face_composition="add",
        face=replace(config.face, channels=channels),
        synthesis=replace(config.synthesis, input_channels=joined),
    )


def _mask_from_background(config: GeneratorConfig) -> GeneratorConfig:
    """The mask is predicted from foreground and background together."""
    return replace(config, mask_sees_background=True)


def _stretched_window(config: GeneratorConfig) -> GeneratorConfig:
    """Windows are sampled with the published step, a row and a column of which repeat."""
    return replace(config, window_sampling="linspace")


def _noise(config: GeneratorConfig) -> GeneratorConfig:
    """The decoder's levels from the fused map's size on take noise, which moves with the face."""
    sizes, size = [], config.feature_size
    while size < config.image_size_px:
        sizes.append(size)
        size *= 2
    return replace(config, synthesis=replace(config.synthesis, noise_sizes=tuple(sizes)))


def _with_all_skips(unet: StyleUNetConfig) -> StyleUNetConfig:
    levels = range(len(unet.encoder_channels) - 1)
    return replace(unet, skip_sizes=tuple(unet.top_size >> level for level in levels))


def _from_rendering(unet: StyleUNetConfig) -> StyleUNetConfig:
    """Lets a network start from an image pack where it started from a feature."""
    return replace(unet, input_channels=0)


def _plain(unet: StyleUNetConfig) -> StyleUNetConfig:
    """Takes the style out of a network: what remains is a UNet."""
    return replace(unet, style=replace(unet.style, is_modulated=False))


def _unused(generator: FeatureGeneratorConfig) -> FeatureGeneratorConfig:
    """Returns the smallest static map, for a part that nothing samples."""
    return replace(generator, base_size=4, base_channels=1, channels=(1,))


def _unchanged(config: GeneratorConfig) -> GeneratorConfig:
    """What differs is a matter of training."""
    return config


Variant = Callable[[GeneratorConfig], GeneratorConfig]

ABLATIONS: dict[str, Variant] = {
    "full": _unchanged,
    "no_neural_texture": _no_neural_texture,
    "no_sliding_window": _unchanged,
    "no_adversarial": _unchanged,
    "single_styleunet": _single_styleunet,
    "dvp": _dvp,
    "dnr": _dnr,
}
PUBLISHED: dict[str, Variant] = {
    "published_rendering": _halved_rendering,
    "published_sampling": _nearest_texture,
    "published_face": _added_face,
    "published_mask": _mask_from_background,
    "published_noise": _noise,
    "published_window": _stretched_window,
    "published_style": _unchanged,
    "published_poses": _unchanged,
    "published_losses": _unchanged,
}
TRIED: dict[str, Variant] = {
    "finer_skips": _finer_skips,
}


def ablate(config: GeneratorConfig, variant: str) -> GeneratorConfig:
    """Returns a variant of a preset.

    Args:
        config: The preset.
        variant: One of ``ABLATIONS``, ``PUBLISHED`` or ``TRIED``; ``full`` is the preset itself.

    Raises:
        InvalidInputError: There is no such variant.
    """
    variants = ABLATIONS | PUBLISHED | TRIED
    if variant not in variants:
        raise InvalidInputError(
            f"there is no variant '{variant}'; choose one of {', '.join(variants)}"
        )
    changed = variants[variant](config)
    return changed if variant == "full" else replace(changed, name=f"{config.name}-{variant}")
