# SPDX-License-Identifier: Apache-2.0
"""StyleUNet: encoder with skips, decoder of modulated convolutions (paper, Sec. 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from styleavatar_core.networks.config import StyleUNetConfig
from styleavatar_core.networks.equalized import EncoderBlock, EqualConv2d
from styleavatar_core.networks.layers import StyledConv, ToRGB
from styleavatar_core.ops.haar import haar_transform
from styleavatar_core.ops.upfirdn2d import downsample_image


class Halving(nn.Module):
    """Halves an image: :func:`downsample_image`."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Maps (B, 3, 2H, 2W) to (B, 3, H, W)."""
        return downsample_image(image)


class FromRGB(nn.Module):
    """Adds the features of an image pack, at a level's resolution, to what arrives from above.

    Args:
        pack_channels: 12 for one Haar level, 48 for two.
        out_channels: Channels of the feature.
        gain: Gain of the activation.
    """

    def __init__(self, pack_channels: int, out_channels: int, *, gain: float) -> None:
        super().__init__()
        self.conv = EqualConv2d(pack_channels, out_channels, 1, gain=gain)
        self.haar_levels = {12: 1, 48: 2}[pack_channels]

    def forward(self, image: torch.Tensor, feature: torch.Tensor | None) -> torch.Tensor:
        """Maps an image (B, 3, r * 2^levels, ...) and a feature (B, C, r, r) to (B, C, r, r)."""
        pack = image
        for _ in range(self.haar_levels):
            pack = haar_transform(pack)
        own = self.conv(pack)
        return own if feature is None else feature + own


class DecoderBlock(nn.Module):
    """One doubling of the decoder: up, optional skip, second convolution, contribution to RGB."""

    def __init__(
        self,
        config: StyleUNetConfig,
        in_channels: int,
        channels: tuple[int, int],
        *,
        skip_channels: int,
        has_noise: bool,
        has_activation: bool,
    ) -> None:
        super().__init__()
        style = config.style
        self.up = StyledConv(style, in_channels, channels[0], doubles=True, has_noise=has_noise)
        self.conv = StyledConv(
            style,
            channels[0] + skip_channels,
            channels[1],
            has_noise=has_noise,
            has_activation=has_activation,
        )
        self.to_rgb = ToRGB(style, channels[1])

    def forward(
        self,
        x: torch.Tensor,
        style: torch.Tensor,
        pixels: torch.Tensor | None,
        *,
        skip: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps x (B, I, r, r) and pixels (B, 12, r, r) to (B, O, 2r, 2r) and (B, 12, 2r, 2r)."""
        y = self.up(x, style, noise)
        if skip is not None:
            y = torch.cat([y, skip], dim=1)
        y = self.conv(y, style, noise)
        return y, self.to_rgb(y, style, pixels)


# Cuts a window out of the decoder's feature and pixels before its last level.
Crop = Callable[[torch.Tensor], torch.Tensor]


class StyleUNet(nn.Module):
    """Image-to-image network with a style.

    Skips come in two kinds (``config.has_early_skips``): joined inside their own level, or, as
    published, after that level's ToRGB by a convolution of their own.
    """

    def __init__(self, config: StyleUNetConfig) -> None:
        super().__init__()
        self.config = config
        gain, taps = config.style.activation_gain, config.style.taps
        widths = config.encoder_channels
        sizes = [config.top_size >> level for level in range(len(widths))]
        self.halving: nn.Module = Halving()
        first_rgb = 1 if config.input_channels else 0
        self.from_rgbs = nn.ModuleDict(
            {
                str(size): FromRGB(config.pack_channels, width, gain=gain)
                for size, width in list(zip(sizes, widths, strict=True))[first_rgb:-1]
            }
        )
        arriving = (config.input_channels or widths[0], *widths[1:-1])
        self.encoder = nn.ModuleList(
            EncoderBlock(arrives, width, below, gain=gain, taps=taps)
            for arrives, width, below in zip(arriving, widths[:-1], widths[1:], strict=True)
        )
        self.bottom = EqualConv2d(widths[-1], widths[-1], 3, gain=gain)
        self._build_decoder(dict(zip(sizes, widths, strict=True)))

    def _build_decoder(self, skip_channels: dict[int, int]) -> None:
        """Builds decoder levels and, for late skips, the convolutions that join them."""
        config = self.config
        self.decoder = nn.ModuleList()
        self.joins = nn.ModuleDict()
        width, size = config.encoder_channels[-1], config.bottom_size
        for index, channels in enumerate(config.decoder_channels):
            size *= 2
            skip = skip_channels[size] if size in config.skip_sizes else 0
            is_last = index == len(config.decoder_channels) - 1
            self.decoder.append(
                DecoderBlock(
                    config,
                    width,
                    channels,
                    skip_channels=skip if config.has_early_skips else 0,
                    has_noise=size in config.noise_sizes,
                    has_activation=config.has_final_activation or not is_last,
                )
            )
            width = channels[1]
            if skip and not config.has_early_skips:
                self.joins[str(size)] = EqualConv2d(
                    width + skip, width, 3, gain=config.style.activation_gain
                )

    def forward(
        self,
        style: torch.Tensor,
        image: torch.Tensor,
        feature: torch.Tensor | None = None,
        *,
        noise: Mapping[int, torch.Tensor] | None = None,
        crop: Crop | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Runs encoder and decoder.

        Args:
            style: (B, style_dim) mapped style.
            image: (B, 3, H, W) float32. Halved until it fits each level's FromRGB.
            feature: (B, input_channels, top_size, top_size), where the config has an input feature.
            noise: Noise by decoder resolution, each (B or 1, 1, r, r); none where missing.
            crop: Applied to feature and pixels before the last decoder level.

        Returns:
            Feature (B, output_channels, output_size, output_size) and the pixels (B, 12, ...) of an
            image of twice that side.
        """
        x, skips = self._encode(image, feature)
        x = self.bottom(x)
        pixels: torch.Tensor | None = None
        size = self.config.bottom_size
        for index, block in enumerate(self.decoder):
            size *= 2
            if crop is not None and index == len(self.decoder) - 1 and pixels is not None:
                x, pixels = crop(x), crop(pixels)
            skip = skips.get(size) if self.config.has_early_skips else None
            x, pixels = block(x, style, pixels, skip=skip, noise=noise.get(size) if noise else None)
            if str(size) in self.joins:
                x = self.joins[str(size)](torch.cat([x, skips[size]], dim=1))
        assert pixels is not None
        return x, pixels

    def _encode(
        self, image: torch.Tensor, feature: torch.Tensor | None
    ) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        """Returns the bottom feature and the skip features by resolution."""
        config = self.config
        skips: dict[int, torch.Tensor] = {}
        x = feature
        size = config.top_size
        image_scale = 2 if config.pack_channels == 12 else 4
        for index, block in enumerate(self.encoder):
            if str(size) in self.from_rgbs:
                while image.shape[-1] > size * image_scale:
                    image = self.halving(image)
                x = self.from_rgbs[str(size)](image, x)
            y, below = block(x)
            if size in config.skip_sizes and (config.has_early_skips or index == 0):
                skips[size] = y
            size //= 2
            if size in config.skip_sizes and not config.has_early_skips:
                skips[size] = below
            x = below
        assert x is not None
        return x, skips
