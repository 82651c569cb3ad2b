# SPDX-License-Identifier: Apache-2.0
"""The composition of face, non-facial foreground and background (paper, Sec. 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from styleavatar_core.networks.composition import (
    BackgroundCutter,
    FaceJoiner,
    FaceSampler,
    LinspaceCutter,
    MaskBlender,
    MaskConv,
    TextureSampler,
    crop_windows,
)
from styleavatar_core.networks.config import GeneratorConfig
from styleavatar_core.networks.feature_generator import FeatureMaps
from styleavatar_core.networks.mapping import MappingNetwork
from styleavatar_core.networks.noise import Noise, unpack_noise
from styleavatar_core.networks.style_unet import StyleUNet
from styleavatar_core.ops.haar import bands_of, pixels_of
from styleavatar_core.ops.to_rgb import double_pixels
from styleavatar_core.ops.upfirdn2d import downsample_image

_PIXEL_CHANNELS = 12  # of an RGB image at half its side: the pixels of a block, or their bands
_CROP_HALO = 2  # texels of the level below that a doubling and a 3x3 convolution look at


@dataclass(frozen=True, slots=True)
class PortraitOutput:
    """What the generator gives.

    Attributes:
        image: (B, 3, H, W) float32, trained to [-1, 1], not clipped.
        mask: (B, 1, Fw, Fw) float32 in (0, 1). Probability of foreground: 1 = person.
    """

    image: torch.Tensor
    mask: torch.Tensor


class PortraitGenerator(nn.Module):
    """Mapping, two StyleUNets and the composition between them: all that runs at inference.

    Args:
        config: The preset.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.mapping = MappingNetwork(config.style.style_dim, config.style.mapping_layer_count)
        if config.has_composition:
            self.foreground: nn.Module = StyleUNet(config.foreground)
            channels = config.foreground.output_channels
            if config.mask_sees_background:
                channels += config.background.feature_channels
        else:
            self.foreground, channels = nn.Identity(), _PIXEL_CHANNELS
        self.mask_conv = MaskConv(channels, 1, 3, gain=None)
        self.synthesis = StyleUNet(config.synthesis)
        self.face_sampler = FaceSampler(config.uv_sampling, config.uv_supersampling)
        self.face_joiner: nn.Module = FaceJoiner(config.face_composition)
        self.noise_sampler = TextureSampler("nearest")
        self.linspace_cutter = LinspaceCutter()
        self.blender = MaskBlender()
        self.background_cutter = BackgroundCutter(config.canvas_size, config.feature_size)
        self.to_image = nn.PixelShuffle(2)

    def forward(
        self,
        style: torch.Tensor,
        rendering: torch.Tensor,
        uv: torch.Tensor,
        face_mask: torch.Tensor,
        face: FeatureMaps,
        background: FeatureMaps,
        window: torch.Tensor,
        background_window: torch.Tensor | None = None,
        noise: Noise | None = None,
    ) -> PortraitOutput:
        """Generates a batch of portraits.

        Args:
            style: (B, style_dim) float32. z_tmp code before mapping, see ``position_code``.
            rendering: (B, 3, R, R) float32 in [-1, 1]. Texture rendering of the middle square of
                the canvas, as large as a window; not moved with the window.
            uv: (B, 2, U, U) float32 in [0, 1]. UV rendering of the window, U = ``config.uv_size``.
            face_mask: (B, 1, U, U) float32 in [0, 1]. 1 where the window shows the face mesh
                (for imported weights: eroded by one texel).
            face: Static maps in UV space; batch 1 or B.
            background: Static maps of the canvas; batch 1 or B.
            window: (B, 2) int64. Offset (x, y) of the window from the middle of the canvas, in
                texels of ``config.pixels_per_texel`` image pixels; clamped to
                ``config.maximum_offset``.
            background_window: The same for the background, where it moves apart; else ``window``.
            noise: Noise maps; None injects none.

        Returns:
            Image and foreground mask of the window.
        """
        mapped = self.mapping(style)
        mask, feature, pixels = self._fuse(mapped, rendering, background, window, background_window)
        if self.config.has_neural_texture:
            texture = self.face_sampler(face, uv, face_mask)
            feature, pixels = self.face_joiner(feature, pixels, *texture)
        levels = None
        if noise is not None and self.config.noise_channels:
            fused = self._compose_noise(mask, noise, window, uv, face_mask)
            levels = unpack_noise(fused, self.config.synthesis.noise_sizes)
        _, drawn = self.synthesis(mapped, F.pixel_shuffle(pixels, 2), feature, noise=levels)
        if self.config.has_fused_rgb_output:
            while pixels.shape[-1] < drawn.shape[-1]:
                pixels = double_pixels(pixels)
            drawn = drawn + pixels
        return PortraitOutput(self.to_image(drawn), mask)

    def _fuse(
        self,
        mapped: torch.Tensor,
        rendering: torch.Tensor,
        background: FeatureMaps,
        window: torch.Tensor,
        background_window: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Returns mask, feature (if any) and pixels of everything but the neural texture.

        Pixels are (B, 12, Fw, Fw): an image of side 2Fw, four pixels in the channels of one.
        """
        if not self.config.has_composition:
            pixels = F.pixel_unshuffle(self._moved_rendering(rendering, window), 2)
            # Without a neural texture the rendering is all there is; with one it only tells where
            # the person is, which the texture's own network has to draw.
            drawn = torch.zeros_like(pixels) if self.config.has_neural_texture else pixels
            return self._mask(bands_of(pixels)), None, drawn
        own, own_pixels = self._foreground(mapped, rendering, window)
        behind = window if background_window is None else background_window
        back, back_pack = self.background_cutter(
            background, self.starts(behind, self.config.canvas_size)
        )
        mask = self._mask(own, back) if self.config.mask_sees_background else self._mask(own)
        feature = self._blend(mask, own, back)
        return mask, feature, self._blend(mask, own_pixels, pixels_of(back_pack))

    def starts(self, window: torch.Tensor, canvas_size: int) -> torch.Tensor:
        """Returns (B, 2) first column and row of each window on a canvas."""
        limit = self.config.maximum_offset
        return window.clamp(-limit, limit) + (canvas_size - self.config.feature_size) // 2

    def _window(self, canvas: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
        """Cuts the foreground's window: (B, C, Fc, Fc) to (B, C, Fw, Fw)."""
        starts = self.starts(window, canvas.shape[-1])
        if self.config.window_sampling == "linspace":
            cut: torch.Tensor = self.linspace_cutter(canvas, starts, self.config.feature_size)
            return cut
        return crop_windows(canvas, starts, self.config.feature_size)

    def _foreground(
        self, mapped: torch.Tensor, rendering: torch.Tensor, window: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns feature (B, C, Fw, Fw) and pixels (B, 12, Fw, Fw) of the foreground."""
        config = self.config
        canvas_px = rendering.shape[-1] * config.canvas_size // config.feature_size
        margin = (canvas_px - rendering.shape[-1]) // 2
        padded = F.pad(rendering, (margin, margin, margin, margin), value=-1.0)
        if config.window_sampling == "linspace":
            feature, pixels = self.foreground(mapped, padded)
            return self._window(feature, window), self._window(pixels, window)
        return self._foreground_in_window(mapped, padded, window)

    def _foreground_in_window(
        self, mapped: torch.Tensor, padded: torch.Tensor, window: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Runs the last level of the first StyleUNet in the window only, with the halo it needs."""
        starts = self.starts(window, self.config.canvas_size)
        corners = torch.div(starts, 2, rounding_mode="floor") - _CROP_HALO  # at half resolution
        size = self.config.feature_size // 2 + 2 * _CROP_HALO

        def crop(x: torch.Tensor) -> torch.Tensor:
            return crop_windows(x, corners, size)

        feature, pixels = self.foreground(mapped, padded, crop=crop)
        rest = starts - corners * 2  # 4 or 5 texels
        side = self.config.feature_size
        return crop_windows(feature, rest, side), crop_windows(pixels, rest, side)

    def _moved_rendering(self, rendering: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
        """Returns the rendering as the window shows it, (B, 3, 2Fw, 2Fw)."""
        config = self.config
        scale = rendering.shape[-1] // config.feature_size
        margin = config.maximum_offset * scale
        padded = F.pad(rendering, (margin, margin, margin, margin), value=-1.0)
        starts = self.starts(window, config.canvas_size) * scale
        moved = crop_windows(padded, starts, rendering.shape[-1])
        while moved.shape[-1] > 2 * config.feature_size:
            moved = downsample_image(moved)
        return moved

    def _mask(self, *shown: torch.Tensor) -> torch.Tensor:
        """Predicts the probability of foreground from (B, C, Fw, Fw): (B, 1, Fw, Fw) in (0, 1)."""
        return torch.tanh(self.mask_conv(*shown)) / 2 + 0.5

    def _blend(self, mask: torch.Tensor, own: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        """Puts the foreground in front of the background by the predicted mask."""
        config = self.config
        if not config.has_mask_gradient:
            mask = mask.detach()
        if config.mask_gain != 1.0:
            mask = ((mask - 0.5) * config.mask_gain + 0.5).clamp(0, 1)
        blended: torch.Tensor = self.blender(mask, own, back)
        return blended

    def _compose_noise(
        self,
        mask: torch.Tensor,
        noise: Noise,
        window: torch.Tensor,
        uv: torch.Tensor,
        face_mask: torch.Tensor,
    ) -> torch.Tensor:
        """Composes the noise like the features: (B, N, Fw, Fw)."""
        config = self.config
        fused = self._blend(mask, self._window(noise.foreground, window), noise.background)
        scale = config.uv_supersampling
        if scale > 1:  # noise is per texel: the top left sample of each is enough
            uv, face_mask = uv[..., ::scale, ::scale], face_mask[..., ::scale, ::scale]
        warped = self.noise_sampler(noise.face, uv) * face_mask
        if config.face_composition == "add":
            return fused + warped
        return fused * (1 - face_mask) + warped
