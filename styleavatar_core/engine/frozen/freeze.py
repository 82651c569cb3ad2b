# SPDX-License-Identifier: Apache-2.0
"""Freezing: everything that is constant at inference becomes a constant (paper, Sec. 3.4).

One z_tmp, one window and the two static maps are fixed, so mapping, modulation and demodulation
disappear; bytes come in and bytes go out. The result equals the trained generator up to rounding.
Where torch runs it, the foreground's window can still be moved from frame to frame.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from styleavatar_core.engine.base import INPUT_NAMES, SAMPLED_NAMES
from styleavatar_core.engine.frozen.composition import (
    FrozenBackground,
    FrozenNarrowConv,
    FrozenSampler,
    MiddleBlock,
    SampledFace,
    compute_around_window,
    enlarge,
)
from styleavatar_core.engine.frozen.layers import FrozenConv, freeze_layer
from styleavatar_core.networks.config import GeneratorConfig
from styleavatar_core.networks.feature_generator import FeatureMaps
from styleavatar_core.networks.noise import Noise
from styleavatar_core.networks.portrait_generator import PortraitGenerator
from styleavatar_core.networks.style_unet import StyleUNet
from styleavatar_core.ops.haar import inverse_haar_transform


class FrozenGenerator(nn.Module):
    """Portrait generator of one avatar, bytes in and bytes out.

    Use :func:`freeze` to make one.

    Args:
        generator: Generator whose layers are frozen already.
        face: Static maps in UV space, batch 1; of one texel where they are not looked at.
        background: Static maps of the canvas, batch 1; likewise.
        window: (1, 2) int64 offset of the window in texels.
        noise: Fixed noise or None.
        samples_face: Whether it samples the face itself, or takes it sampled.

    Attributes:
        frozen_at: Offset (x, y) of the window that it was frozen for, texels.
    """

    generator: PortraitGenerator
    style: torch.Tensor
    face_feature: torch.Tensor
    face_rgb_pack: torch.Tensor
    background_feature: torch.Tensor
    background_rgb_pack: torch.Tensor
    noise_foreground: torch.Tensor
    noise_face: torch.Tensor
    noise_background: torch.Tensor

    def __init__(
        self,
        generator: PortraitGenerator,
        face: FeatureMaps,
        background: FeatureMaps,
        window: torch.Tensor,
        noise: Noise | None,
        samples_face: bool = True,
    ) -> None:
        super().__init__()
        self.generator, self.samples_face = generator, samples_face
        self.config = generator.config
        self.image_bytes = ImageBytes()
        self.mask_bytes = MaskBytes(self.config.image_size_px // self.config.feature_size)
        self.register_buffer("style", torch.zeros(1, self.config.style.style_dim))
        self.window = window  # always on the host: reading it would make a GPU wait
        self.offset = self.frozen_at = (int(window[0, 0]), int(window[0, 1]))
        self.register_buffer("face_feature", face.feature.detach().clone())
        self.register_buffer("face_rgb_pack", face.rgb_pack.detach().clone())
        self.register_buffer("background_feature", background.feature.detach().clone())
        self.register_buffer("background_rgb_pack", background.rgb_pack.detach().clone())
        self.has_noise = noise is not None
        if noise is not None:
            self.register_buffer("noise_foreground", noise.foreground)
            self.register_buffer("noise_face", noise.face)
            self.register_buffer("noise_background", noise.background)

    def move_window(self, offset: tuple[int, int]) -> None:
        """Moves the foreground's window to (x, y) texels; the background's stays (Sec. 3.2)."""
        if offset == self.offset:
            return
        self.offset, self.window = offset, torch.tensor([offset], dtype=torch.int64)
        for part in self.modules():
            if isinstance(part, MiddleBlock):
                part.is_whole = offset != self.frozen_at

    def forget_face(self) -> None:
        """Frees the face's maps: what samples the face has them in a form of its own."""
        face = _one_texel(FeatureMaps(self.face_feature, self.face_rgb_pack))
        self.face_feature, self.face_rgb_pack = face.feature.clone(), face.rgb_pack.clone()

    def input_types(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Returns shape (without the batch) and type of what it takes, by name."""
        config = self.config
        size, uv_size, texels = config.rendering_size_px, config.uv_size, config.feature_size
        channels = config.face.feature_channels * config.uv_supersampling**2
        given = (
            [((uv_size, uv_size, 2), torch.float32), ((uv_size, uv_size), torch.uint8)]
            if self.samples_face
            else [((texels, texels, count), torch.float32) for count in (channels, 12)]
        )
        names = INPUT_NAMES if self.samples_face else SAMPLED_NAMES
        return dict(zip(names, [((size, size, 3), torch.uint8), *given], strict=True))

    def forward(
        self, texture_rendering: torch.Tensor, *where: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Renders a batch.

        Args:
            texture_rendering: (B, R, R, 3) uint8 RGB of the window.
            where: UV coordinates (B, U, U, 2) float32 in [0, 1] and face mask (B, U, U) uint8, 1 on
                the face; or what ``FaceLookup`` samples there, if the face comes sampled.

        Returns:
            Image (B, H, W, 3) uint8 RGB and foreground mask (B, H, W) uint8, 255 = person.
        """
        dtype = self.face_feature.dtype
        # Types change first and last: runtimes for GPUs take bytes at the ends of a graph only.
        rendering = (texture_rendering.float() / 127.5 - 1.0).permute(0, 3, 1, 2).to(dtype)
        count = len(texture_rendering)
        output = self.generator(
            self.style.expand(count, -1),
            rendering,
            *self._face(where, dtype),
            FeatureMaps(self.background_feature, self.background_rgb_pack),
            self.window,
            noise=self._noise(),
        )
        return self.image_bytes(output.image), self.mask_bytes(output.mask)

    def _face(
        self, where: tuple[torch.Tensor, ...], dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor, FeatureMaps]:
        """Returns UV coordinates, face mask and maps as the networks take them."""
        if self.samples_face:
            uv, mask = where
            maps = FeatureMaps(self.face_feature, self.face_rgb_pack)
            return uv.permute(0, 3, 1, 2), mask.to(dtype)[:, None], maps
        feature, pixels = (part.permute(0, 3, 1, 2).to(dtype) for part in where)
        return feature, feature, FeatureMaps(feature, pixels)  # coordinates are looked up no more

    def _noise(self) -> Noise | None:
        """Returns the fixed noise, on the device of the weights."""
        if not self.has_noise:
            return None
        return Noise(self.noise_foreground, self.noise_face, self.noise_background)


class ImageBytes(nn.Module):
    """Turns images in [-1, 1] into bytes."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Maps (B, 3, H, W) to (B, H, W, 3) uint8."""
        return _to_bytes(image.permute(0, 2, 3, 1).float() * 0.5 + 0.5)


class MaskBytes(nn.Module):
    """Enlarges masks in (0, 1) to the image's side and turns them into bytes.

    Args:
        factor: How many times their side.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, mask: torch.Tensor) -> torch.Tensor:
        """Maps (B, 1, H, W) to (B, factor * H, factor * W) uint8."""
        return _to_bytes(enlarge(mask, self.factor)[:, 0])


def _to_bytes(values: torch.Tensor) -> torch.Tensor:
    """Maps [0, 1] to rounded uint8; in fp32, as fp16 has too few steps near 255."""
    return (values.float() * 255.0).round().clamp(0.0, 255.0).to(torch.uint8)


def _freeze_children(module: nn.Module, style: torch.Tensor) -> None:
    """Replaces the layers below a module by their frozen counterparts, in place."""
    for name, child in list(module.named_children()):
        frozen = freeze_layer(child, style)
        if frozen is not None:
            setattr(module, name, frozen)
        else:
            _freeze_children(child, style)


@torch.no_grad()
def freeze(
    generator: PortraitGenerator,
    style: torch.Tensor,
    face: FeatureMaps,
    background: FeatureMaps,
    *,
    window: tuple[int, int] = (0, 0),
    noise: Noise | None = None,
    is_used_up: bool = False,
    samples_face: bool = True,
) -> FrozenGenerator:
    """Freezes a trained generator.

    Args:
        generator: The trained generator, on the CPU.
        style: (1, style_dim) z_tmp code before mapping.
        face: Static maps in UV space.
        background: Static maps of the canvas.
        window: Offset (x, y) of the window from the middle of the canvas, texels.
        noise: Fixed noise; None leaves the noise out.
        is_used_up: Whether ``generator`` may be changed, which saves a copy; it stays as it is
            otherwise.
        samples_face: Whether it samples the face itself; if not, its configuration must be one for
            which :func:`can_take_samples` holds.

    Returns:
        The frozen generator, in evaluation mode.
    """
    frozen = (generator if is_used_up else copy.deepcopy(generator)).eval()
    mapped = frozen.mapping(style[:1])
    _freeze_children(frozen.foreground, mapped)
    _freeze_children(frozen.synthesis, mapped)
    frozen.mapping = nn.Identity()  # type: ignore[assignment]
    if not samples_face:
        frozen.face_sampler = SampledFace()  # type: ignore[assignment]
        face = _one_texel(face)
    elif frozen.config.uv_sampling == "bilinear" and frozen.config.uv_supersampling > 1:
        frozen.face_sampler.features = FrozenSampler(face.feature)
        frozen.face_sampler.colours = FrozenSampler(inverse_haar_transform(face.rgb_pack))
        face = _one_texel(face)
    if frozen.config.window_sampling == "linspace":
        distance = min(max(map(abs, window)), frozen.config.maximum_offset)
        assert isinstance(frozen.foreground, StyleUNet)
        compute_around_window(frozen.foreground, frozen.config.feature_size, distance)
    offset = torch.tensor([window], dtype=torch.int64)
    starts = frozen.starts(offset, frozen.config.canvas_size)
    shown = frozen.background_cutter(background, starts)
    frozen.background_cutter = FrozenBackground(*shown)  # type: ignore[assignment]
    mask_conv = freeze_layer(frozen.mask_conv, mapped)
    assert isinstance(mask_conv, FrozenConv)
    sees_background = frozen.config.has_composition and frozen.config.mask_sees_background
    frozen.mask_conv = FrozenNarrowConv(  # type: ignore[assignment]
        mask_conv, shown[0] if sees_background else None
    )
    background = _one_texel(background)
    whole = FrozenGenerator(frozen, face, background, offset, noise, samples_face)
    return whole.requires_grad_(False).eval()


def can_take_samples(config: GeneratorConfig) -> bool:
    """Whether a generator of this kind can be frozen without sampling the face itself."""
    return (
        config.has_neural_texture
        and (config.uv_sampling, config.uv_supersampling) == ("bilinear", 2)
        and config.face_composition == "concat"
        and not config.noise_channels
    )


def _one_texel(maps: FeatureMaps) -> FeatureMaps:
    """Returns maps that stand for those which frozen parts have taken in."""
    return FeatureMaps(maps.feature[..., :1, :1], maps.rgb_pack[..., :1, :1])
