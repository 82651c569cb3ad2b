# SPDX-License-Identifier: Apache-2.0
"""The discriminator: sees image and, as facial prior, texture rendering (paper, Sec. 3.3)."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from styleavatar_core.networks.config import DiscriminatorConfig
from styleavatar_core.networks.equalized import EncoderBlock, EqualConv2d, EqualLinear
from styleavatar_core.ops.haar import haar_transform
from styleavatar_core.ops.ranks import gather_over_ranks, own_share
from styleavatar_core.ops.upfirdn2d import downsample_image

_GAIN = 2.0**0.5
_STDDEV_GROUP = 4
_PACK_CHANNELS = 24


def append_minibatch_stddev(x: torch.Tensor) -> torch.Tensor:
    """Appends one channel with the mean deviation within groups of up to four samples.

    Args:
        x: (B, C, H, W). Groups are as large as divides the samples of all ranks.

    Returns:
        (B, C + 1, H, W).
    """
    everybody = gather_over_ranks(x)
    batch, channels, height, width = everybody.shape
    group = next(size for size in range(_STDDEV_GROUP, 0, -1) if batch % size == 0)
    grouped = everybody.reshape(group, batch // group, channels, height, width)
    deviation = (grouped.var(dim=0, unbiased=False) + 1e-8).sqrt()  # (B/group, C, H, W)
    mean = deviation.mean(dim=(1, 2, 3)).repeat(group).reshape(batch, 1, 1, 1)
    return torch.cat([x, mean[own_share()].expand(-1, 1, height, width)], dim=1)


class Discriminator(nn.Module):
    """Scores how real an image is, given the texture rendering it should follow.

    Args:
        config: ``GeneratorConfig.discriminator``.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.channels
        self.from_rgbs = nn.ModuleList(
            EqualConv2d(_PACK_CHANNELS, width, 1, gain=_GAIN) for width in widths
        )
        self.blocks = nn.ModuleList(
            EncoderBlock(width, width, below, gain=_GAIN, taps=config.taps)
            for width, below in itertools.pairwise(widths)
        )
        last, hidden = widths[-1], config.hidden_channels
        self.final_conv = EqualConv2d(last + 1, hidden, 3, gain=_GAIN)
        self.final_linear = EqualLinear(hidden * config.final_size**2, hidden, gain=_GAIN)
        self.score = EqualLinear(hidden, 1)

    def forward(self, image: torch.Tensor, rendering: torch.Tensor) -> torch.Tensor:
        """Scores a batch.

        Args:
            image: (B, 3, H, W) float32 in [-1, 1], real or generated.
            rendering: (B, 3, H, W) float32 in [-1, 1], texture rendering of the same window.

        Returns:
            (B, 1) logits; high means real.
        """
        image = torch.cat([image, rendering], dim=1)
        x: torch.Tensor | None = None
        for index, from_rgb in enumerate(self.from_rgbs):
            if index > 0:
                image = downsample_image(image)
            own = from_rgb(haar_transform(image))
            x = own if x is None else x + own
            if index < len(self.blocks):
                _, x = self.blocks[index](x)
        assert x is not None
        x = self.final_conv(append_minibatch_stddev(x))
        return self.score(self.final_linear(x.flatten(1)))
