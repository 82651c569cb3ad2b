# SPDX-License-Identifier: Apache-2.0
"""Static feature maps of the face and of the background, in training only (paper, Sec. 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from styleavatar_core.networks.config import FeatureGeneratorConfig
from styleavatar_core.networks.layers import ConstantInput, StyledConv, ToRGB
from styleavatar_core.networks.mapping import MappingNetwork
from styleavatar_core.ops.haar import bands_of


@dataclass(frozen=True, slots=True)
class FeatureMaps:
    """A feature map and the RGB pack that goes with it.

    Attributes:
        feature: (B, C, F, F) float32.
        rgb_pack: (B, 12, F, F) float32. Haar pack of an RGB image of side 2F, about [-1, 1].
    """

    feature: torch.Tensor
    rgb_pack: torch.Tensor


class FeatureGenerator(nn.Module):
    """StyleGAN2 generator of one static map: of the face in UV space, or of the background.

    Its output depends on nothing but the code: one call with batch 1 serves a training step.

    Args:
        config: ``GeneratorConfig.face`` or ``GeneratorConfig.background``.
        person_count: How many persons' maps it gives, told apart by the code.
    """

    def __init__(self, config: FeatureGeneratorConfig, person_count: int = 1) -> None:
        super().__init__()
        self.config = config
        self._person_count = person_count
        style = config.style
        self.mapping = MappingNetwork(style.style_dim, style.mapping_layer_count)
        self.input = ConstantInput(config.base_channels, config.base_size)
        self.ups = nn.ModuleList()
        self.convs = nn.ModuleList()
        self.to_rgbs = nn.ModuleList()
        width = config.base_channels
        for channels in config.channels:
            self.ups.append(StyledConv(style, width, channels, doubles=True))
            self.convs.append(StyledConv(style, channels, channels))
            self.to_rgbs.append(ToRGB(style, channels))
            width = channels
        if config.norm == "batch":
            self.norm: nn.Module = nn.BatchNorm2d(width)
        else:
            self.norm = nn.InstanceNorm2d(width, affine=True)

    def forward(self, style: torch.Tensor) -> FeatureMaps:
        """Generates the maps.

        Args:
            style: (B, style_dim) float32. z_id code before mapping, see ``position_code``.

        Returns:
            Maps of side ``config.size``.
        """
        mapped = self.mapping(style)
        x = self.input().expand(len(style), -1, -1, -1)
        pixels: torch.Tensor | None = None
        for up, conv, to_rgb in zip(self.ups, self.convs, self.to_rgbs, strict=True):
            x = conv(up(x, mapped), mapped)
            pixels = to_rgb(x, mapped, pixels)
        assert pixels is not None
        return FeatureMaps(self._normalized(x), bands_of(pixels))

    def _normalized(self, x: torch.Tensor) -> torch.Tensor:
        norm = self.norm
        if isinstance(norm, nn.BatchNorm2d) and self._person_count > 1 and not self.training:
            # By the map's own statistics, as in training: running ones mix those of all persons.
            return F.batch_norm(x, None, None, norm.weight, norm.bias, training=True)
        return norm(x)
