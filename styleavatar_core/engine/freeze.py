# SPDX-License-Identifier: Apache-2.0
"""Freezing: everything that is constant at inference becomes a constant (paper, Sec. 3.4).

One z_tmp, one window and the two static maps are fixed, so mapping, modulation and demodulation
disappear; bytes come in and bytes go out. The result equals the trained generator up to rounding.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from styleavatar_core.engine.frozen_composition import (
    ExactSampler,
    FrozenBackground,
    FrozenSampler,
    compute_around_window,
)
from styleavatar_core.engine.frozen_layers import FrozenConv, FrozenNarrowConv, freeze_layer
from styleavatar_core.errors import InvalidInputError
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
    """

    generator: PortraitGenerator
    style: torch.Tensor
    window: torch.Tensor
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
    ) -> None:
        super().__init__()
        self.generator = generator
        self.config = generator.config
        self.register_buffer("style", torch.zeros(1, self.config.style.style_dim))
        self.register_buffer("window", window)
        self.register_buffer("face_feature", face.feature.detach().clone())
        self.register_buffer("face_rgb_pack", face.rgb_pack.detach().clone())
        self.register_buffer("background_feature", background.feature.detach().clone())
        self.register_buffer("background_rgb_pack", background.rgb_pack.detach().clone())
        self.has_noise = noise is not None
        if noise is not None:
            self.register_buffer("noise_foreground", noise.foreground)
            self.register_buffer("noise_face", noise.face)
            self.register_buffer("noise_background", noise.background)

    def forward(
        self, texture_rendering: torch.Tensor, uv: torch.Tensor, face_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Renders a batch.

        Args:
            texture_rendering: (B, R, R, 3) uint8 RGB of the window.
            uv: (B, U, U, 2) float32 in [0, 1].
            face_mask: (B, U, U) uint8, 1 on the face.

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
            uv.permute(0, 3, 1, 2),
            face_mask.to(dtype)[:, None],
            FeatureMaps(self.face_feature, self.face_rgb_pack),
            FeatureMaps(self.background_feature, self.background_rgb_pack),
            self.window,
            noise=self._noise(),
        )
        size = (self.config.image_size_px, self.config.image_size_px)
        mask = F.interpolate(output.mask, size=size, mode="bilinear", align_corners=False)
        image = output.image.permute(0, 2, 3, 1).float() * 0.5 + 0.5
        return _to_bytes(image), _to_bytes(mask[:, 0])

    def _noise(self) -> Noise | None:
        """Returns the fixed noise, on the device of the weights."""
        if not self.has_noise:
            return None
        return Noise(self.noise_foreground, self.noise_face, self.noise_background)


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

    Returns:
        The frozen generator, in evaluation mode.
    """
    frozen = (generator if is_used_up else copy.deepcopy(generator)).eval()
    mapped = frozen.mapping(style[:1])
    _freeze_children(frozen.foreground, mapped)
    _freeze_children(frozen.synthesis, mapped)
    frozen.mapping = nn.Identity()  # type: ignore[assignment]
    if frozen.config.uv_sampling == "bilinear" and frozen.config.uv_supersampling > 1:
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
    frozen.mask_conv = FrozenNarrowConv(  # type: ignore[assignment]
        mask_conv, shown[0] if frozen.config.has_composition else None
    )
    background = _one_texel(background)
    return FrozenGenerator(frozen, face, background, offset, noise).requires_grad_(False).eval()


def _one_texel(maps: FeatureMaps) -> FeatureMaps:
    """Returns maps that stand for those which frozen parts have taken in."""
    return FeatureMaps(maps.feature[..., :1, :1], maps.rgb_pack[..., :1, :1])


def with_precision(generator: FrozenGenerator, precision: str) -> FrozenGenerator:
    """Returns a frozen generator that computes in a precision; strongly typed where it is traced.

    UV coordinates and the last step to bytes stay fp32: half a texel and half a step of uint8 are
    lost otherwise.

    Args:
        generator: A frozen generator in fp32; not changed.
        precision: ``fp32`` or ``fp16``.

    Raises:
        InvalidInputError: There is no such precision.
    """
    if precision == "fp32":
        return generator
    if precision != "fp16":
        raise InvalidInputError(
            f"the generator cannot be frozen in precision '{precision}'; choose fp32 or fp16"
        )
    converted = copy.deepcopy(generator).half()
    parts = converted.generator
    for holder, name in (
        (parts.face_sampler, "features"),
        (parts.face_sampler, "colours"),
        (parts, "noise_sampler"),
    ):
        sampler = getattr(holder, name)
        if not isinstance(sampler, FrozenSampler):
            setattr(holder, name, ExactSampler(sampler))
    return converted
