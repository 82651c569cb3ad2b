# SPDX-License-Identifier: Apache-2.0
"""Every number of the networks, as frozen dataclasses, and the presets.

All presets run the same code. ``paper`` has the published topology; the others differ by options
only, each of them named here (sampling, skips, composition), so that an ablation is a setting.
A *texel* is one element of the fused feature map; image and packs are multiples of it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from styleavatar_core.errors import InvalidInputError

_FORMER = ("rendering_pack_levels",)  # in older bundles; ``pack_channels`` says the same


class _Config:
    """All numbers of something; a file of it says nothing besides."""

    __slots__ = ()
    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class StyleConfig(_Config):
    """What all generator layers share."""

    style_dim: int = 64  # size of z_tmp, z_id and of the mapped style
    mapping_layer_count: int = 4  # linear layers of the mapping network
    taps: tuple[float, ...] = (1.0, 1.0)  # FIR of the resampling convolutions
    activation_gain: float = 2.0**0.5  # factor after each leaky ReLU
    rgb_start: float = 0.1  # spread of ToRGB's weights at the start: small starts from a grey image
    has_unused_noise: bool = False  # noise strengths in layers that never get noise
    is_modulated: bool = True  # False makes plain convolutions of the decoder's: a UNet


@dataclass(frozen=True, slots=True)
class FeatureGeneratorConfig(_Config):
    """Static map from a style code (Sec. 3.2)."""

    style: StyleConfig
    base_size: int  # side of the learned constant
    base_channels: int  # channels of the learned constant
    channels: tuple[int, ...]  # channels after each doubling; the last are the feature's
    norm: Literal["batch", "instance"] = "instance"  # of the feature only

    @property
    def size(self) -> int:
        """Side F of the maps that come out."""
        return self.base_size * 2 ** len(self.channels)

    @property
    def feature_channels(self) -> int:
        """Channels C of the feature map that comes out."""
        return self.channels[-1]


@dataclass(frozen=True, slots=True)
class StyleUNetConfig(_Config):
    """One encoder-decoder with modulated decoder (Sec. 3.3)."""

    style: StyleConfig
    input_channels: int  # channels of the input feature at the first level; 0 starts from FromRGB
    pack_channels: int  # of the pack that FromRGB takes: 12 of one Haar level, 48 of two
    top_size: int  # side of the first level
    encoder_channels: tuple[int, ...]  # per level, halving; the last is the bottom
    decoder_channels: tuple[tuple[int, int], ...]  # per doubling: after the up, after the second
    skip_sizes: tuple[int, ...]  # resolutions whose encoder feature reaches the decoder
    has_early_skips: bool = True  # a skip enters its own level, not the next one after ToRGB
    has_final_activation: bool = True  # of the last convolution
    noise_sizes: tuple[int, ...] = ()  # decoder resolutions with noise injection

    @property
    def bottom_size(self) -> int:
        """Side of the smallest level."""
        return self.top_size // 2 ** (len(self.encoder_channels) - 1)

    @property
    def output_size(self) -> int:
        """Side of the feature that comes out; the image has twice this side."""
        return self.bottom_size * 2 ** len(self.decoder_channels)

    @property
    def output_channels(self) -> int:
        """Channels of the feature that comes out."""
        return self.decoder_channels[-1][1]


@dataclass(frozen=True, slots=True)
class DiscriminatorConfig(_Config):
    """Judge of image and texture rendering together (Sec. 3.3)."""

    image_size_px: int
    channels: tuple[int, ...]  # per level from half the image side, halving; the last is at the end
    hidden_channels: int  # of the last two layers
    taps: tuple[float, ...] = (1.0, 1.0)

    @property
    def final_size(self) -> int:
        """Side of the last level."""
        return self.image_size_px // 2 ** len(self.channels)


@dataclass(frozen=True, slots=True)
class GeneratorConfig(_Config):
    """All numbers and options of a preset."""

    name: str
    image_size_px: int  # side of the output image
    feature_size: int  # side Fw of the fused map: the window, in texels
    canvas_size: int  # side Fc of the canvas, in texels, concentric with the window
    rendering_size_px: int  # side R of the texture rendering of the window-sized central square
    style: StyleConfig
    face: FeatureGeneratorConfig  # in UV space
    background: FeatureGeneratorConfig  # in image space; resampled to the canvas if of another size
    foreground: StyleUNetConfig  # first StyleUNet: rendering -> non-facial foreground
    synthesis: StyleUNetConfig  # second StyleUNet: fused map -> image
    discriminator: DiscriminatorConfig
    uv_sampling: Literal["nearest", "bilinear"] = "bilinear"
    uv_supersampling: int = 1  # samples per texel side in the face: UV maps have Fw times this
    window_sampling: Literal["exact", "linspace"] = "exact"  # linspace repeats the published step
    face_composition: Literal["add", "concat"] = "concat"  # how the face joins the rest
    mask_gain: float = 1.0  # the mask is sharpened by this and clipped
    has_mask_gradient: bool = True  # the image losses reach the mask
    mask_sees_background: bool = True  # it is predicted from what is behind the person, too
    has_fused_rgb_output: bool = True  # the fused RGB pack is added to the output image
    has_composition: bool = True  # foreground and background are drawn apart; else one network does
    has_neural_texture: bool = True  # the face is sampled from its static map
    position_octaves: int = 8  # octaves of the positional code; the rest of the code is zero

    @property
    def uv_size(self) -> int:
        """Side of the UV rendering and of the face mask that the generator takes."""
        return self.feature_size * self.uv_supersampling

    @property
    def maximum_offset(self) -> int:
        """Largest window offset from the centre that stays on the canvas, in texels."""
        return (self.canvas_size - self.feature_size) // 2

    @property
    def pixels_per_texel(self) -> int:
        """Image pixels per texel side."""
        return self.image_size_px // self.feature_size

    @property
    def noise_channels(self) -> int:
        """Channels of a noise map: 1, 4, 16 ... for each doubling that takes noise."""
        return sum((size // self.feature_size) ** 2 for size in self.synthesis.noise_sizes)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, as stored in a bundle or checkpoint."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> GeneratorConfig:
        """Restores a config from ``to_dict``'s values, also after a trip through JSON."""
        values = {name: value for name, value in values.items() if name not in _FORMER}
        try:
            return _reader().validate_python(values)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise InvalidInputError(
                f"the network configuration cannot be read ({place}: {first['msg']}); "
                "was it written by another version?"
            ) from error


@cache
def _reader() -> TypeAdapter[GeneratorConfig]:
    return TypeAdapter(GeneratorConfig)
