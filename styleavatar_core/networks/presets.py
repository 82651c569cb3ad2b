# SPDX-License-Identifier: Apache-2.0
"""The presets by name: ``paper`` and ``paper+`` (1024), ``hd`` (512), ``lite``, ``nano`` (128)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from styleavatar_core.errors import InvalidInputError
from styleavatar_core.networks.config import (
    DiscriminatorConfig,
    FeatureGeneratorConfig,
    GeneratorConfig,
    StyleConfig,
    StyleUNetConfig,
)
from styleavatar_core.ops.upfirdn2d import IMAGE_TAPS

_FOREGROUND_BOTTOM = 3  # texels per side at the bottom of the first StyleUNet
_FINEST_SKIP = 32  # texels per side, as published: finer skips gained nothing (docs/results.md)


def _paper() -> GeneratorConfig:
    """Returns the published topology, with what it does differently from ours spelled out."""
    style = StyleConfig(taps=IMAGE_TAPS, activation_gain=1.0, rgb_start=1.0, has_unused_noise=True)
    generator = FeatureGeneratorConfig(style, 4, 512, (512, 512, 512, 512, 256), norm="batch")
    return GeneratorConfig(
        name="paper",
        image_size_px=1024,
        feature_size=128,
        canvas_size=256,
        rendering_size_px=256,
        style=style,
        face=generator,
        background=generator,
        foreground=StyleUNetConfig(
            style,
            input_channels=0,
            pack_channels=12,
            top_size=128,
            encoder_channels=(32, 256, 256, 256),
            decoder_channels=((256, 256), (256, 256), (128, 128), (128, 256)),
            skip_sizes=(32,),
            has_early_skips=False,
            has_final_activation=False,
        ),
        synthesis=StyleUNetConfig(
            style,
            input_channels=256,
            pack_channels=12,
            top_size=128,
            encoder_channels=(256, 128, 512, 512, 512),
            decoder_channels=((512, 512),) * 3 + ((256, 256), (128, 128), (64, 64)),
            skip_sizes=(32, 16),
            has_early_skips=False,
            noise_sizes=(128, 256, 512),
        ),
        discriminator=DiscriminatorConfig(
            1024, (32, 128, 256, 512, 512, 512, 512, 512), 512, taps=IMAGE_TAPS
        ),
        uv_sampling="nearest",
        window_sampling="linspace",
        face_composition="add",
        mask_gain=1.1,
        has_mask_gradient=False,
        has_fused_rgb_output=False,
        position_octaves=32,
    )


def _paper_plus() -> GeneratorConfig:
    """Returns the published widths with what ``hd`` does otherwise: needs a training of its own."""
    paper = _paper()
    style = StyleConfig()
    generator = FeatureGeneratorConfig(style, 4, 512, paper.background.channels)
    return replace(
        paper,
        name="paper+",
        style=style,
        face=replace(generator, channels=(*generator.channels, 64)),
        background=generator,
        foreground=replace(
            paper.foreground,
            style=style,
            pack_channels=48,
            has_early_skips=True,
            has_final_activation=True,
        ),
        synthesis=replace(paper.synthesis, style=style, input_channels=512, has_early_skips=True),
        uv_sampling="bilinear",
        uv_supersampling=2,  # four samples of 64 channels join what is behind them as 256
        window_sampling="exact",
        face_composition="concat",
        mask_gain=1.0,
        has_mask_gradient=True,
        mask_sees_background=False,
        has_fused_rgb_output=True,
        position_octaves=8,
    )


def _fast(
    name: str,
    image_size_px: int,
    *,
    base: int,
    face_channels: int,
    levels: int,
    widths: tuple[int, int, int, int],
) -> GeneratorConfig:
    """Returns a preset of our own: fused map at pack resolution, small channels.

    The neural texture has as many texels per side as the image has pixels: a face fills a part of
    either, and coarser maps cannot hold what is thin (glasses, hair). The first StyleUNet goes down
    until each cell sees the whole canvas, as shoulders depend on where the head is.

    Args:
        name: Name of the preset.
        image_size_px: Output side; the fused map has half of it.
        base: Channels of the non-facial map and of the static background.
        face_channels: Channels of the neural texture, sampled twice per texel side.
        levels: Halvings of the second StyleUNet.
        widths: Encoder channels of the second StyleUNet at the first four levels.
    """
    style = StyleConfig()
    size = image_size_px // 2
    canvas = size * 3 // 2
    deep = widths + (widths[-1],) * (levels - 3)
    narrow = tuple(min(width, limit) for width, limit in zip(widths, (16, 24, 40, 64), strict=True))
    depth = (canvas // (2 * _FOREGROUND_BOTTOM)).bit_length() - 1
    narrow += (narrow[-1],) * (depth + 1 - len(narrow))
    doublings = (size // 8).bit_length() - 1
    static = tuple(min(96, 8 << k) for k in reversed(range(doublings + 1)))
    return GeneratorConfig(
        name=name,
        image_size_px=image_size_px,
        feature_size=size,
        canvas_size=canvas,
        rendering_size_px=image_size_px,
        style=style,
        face=FeatureGeneratorConfig(style, 8, 128, (*static[:-1], face_channels)),
        background=FeatureGeneratorConfig(style, 6, 128, (*static[:-1], base)),
        foreground=StyleUNetConfig(
            style,
            input_channels=0,
            pack_channels=48,
            top_size=canvas // 2,
            encoder_channels=narrow,
            decoder_channels=(
                *[(width, width) for width in reversed(narrow[:-1])],
                (base, base),
            ),
            skip_sizes=_skip_sizes(canvas // 2, depth),
        ),
        synthesis=StyleUNetConfig(
            style,
            input_channels=base + 4 * face_channels,
            pack_channels=12,
            top_size=size,
            encoder_channels=deep,
            decoder_channels=tuple((width, width) for width in reversed(deep[:-1])),
            skip_sizes=_skip_sizes(size, len(deep) - 1),
        ),
        discriminator=DiscriminatorConfig(
            image_size_px,
            tuple(min(256, 16 << k) for k in range(image_size_px.bit_length() - 3)),
            256,
        ),
        uv_supersampling=2,
        mask_sees_background=False,  # where the clip had the person says nothing of a moved one
    )


def _skip_sizes(top_size: int, level_count: int) -> tuple[int, ...]:
    """Returns the levels whose feature reaches the decoder."""
    sizes = (top_size >> level for level in range(level_count))
    return tuple(size for size in sizes if size <= _FINEST_SKIP)


def _hd() -> GeneratorConfig:
    return _fast("hd", 512, base=32, face_channels=12, levels=5, widths=(48, 96, 160, 256))


def _lite() -> GeneratorConfig:
    return _fast("lite", 256, base=16, face_channels=4, levels=4, widths=(16, 32, 64, 96))


def _nano() -> GeneratorConfig:
    return _fast("nano", 128, base=16, face_channels=4, levels=3, widths=(16, 32, 64, 96))


PRESETS: dict[str, Callable[[], GeneratorConfig]] = {
    "paper": _paper,
    "paper+": _paper_plus,
    "hd": _hd,
    "lite": _lite,
    "nano": _nano,
}


def get_preset(name: str) -> GeneratorConfig:
    """Returns a preset by name.

    Raises:
        InvalidInputError: There is no such preset.
    """
    if name not in PRESETS:
        raise InvalidInputError(f"there is no preset '{name}'; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]()
