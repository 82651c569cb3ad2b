# SPDX-License-Identifier: Apache-2.0
"""The three networks that make the picture, trained and averaged together."""

from __future__ import annotations

import copy

import torch
from torch import nn

from styleavatar_core.networks import (
    FeatureGenerator,
    FeatureMaps,
    GeneratorConfig,
    Noise,
    PortraitGenerator,
    PortraitOutput,
    position_code,
)
from styleavatar_core.ops.haar import haar_transform
from styleavatar_core.training.batches import Batch

_IDENTITY = 0.0  # argument of z_id's code: one video, one identity


class AvatarNetworks(nn.Module):
    """Feature generators of face and background, and the portrait generator.

    The RGB parts of the static maps are what a generator gives added to a fixed picture, zero until
    :meth:`start_from` is told what the clip shows.

    Args:
        config: The preset.
    """

    face_start: torch.Tensor
    background_start: torch.Tensor

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.face = FeatureGenerator(config.face)
        self.background = FeatureGenerator(config.background)
        self.generator = PortraitGenerator(config)
        for name, part in (("face_start", config.face), ("background_start", config.background)):
            self.register_buffer(name, torch.zeros(1, 12, part.size, part.size))

    def start_from(self, texture: torch.Tensor, backplate: torch.Tensor) -> None:
        """Sets what the RGB parts of the static maps start from.

        Args:
            texture: (1, 3, 2F, 2F) float32 in [-1, 1], colours of the face in UV space; F is the
                side of its map.
            backplate: (1, 3, 2G, 2G) float32 in [-1, 1], the canvas without the person; G is the
                side of the background's map.
        """
        self.face_start.copy_(haar_transform(texture))
        self.background_start.copy_(haar_transform(backplate))

    def static_maps(self) -> tuple[FeatureMaps, FeatureMaps]:
        """Returns the maps of face and background, batch 1: the same for every frame."""
        code = self.code(torch.tensor([_IDENTITY]))
        face, background = self.face(code), self.background(code)
        return (
            FeatureMaps(face.feature, face.rgb_pack + self.face_start),
            FeatureMaps(background.feature, background.rgb_pack + self.background_start),
        )

    def code(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the (B, style_dim) positional codes of times or identities."""
        config = self.config
        return position_code(x, config.style.style_dim, config.position_octaves)

    def forward(
        self,
        batch: Batch,
        maps: tuple[FeatureMaps, FeatureMaps] | None = None,
        noise: Noise | None = None,
    ) -> PortraitOutput:
        """Generates the pictures of a batch.

        Args:
            batch: Renderings, windows and times.
            maps: Static maps, where they are known already.
            noise: Noise maps, for presets that inject noise.
        """
        face, background = self.static_maps() if maps is None else maps
        return self.generator(
            self.code(batch.style_time),
            batch.rendering,
            batch.uv,
            batch.face_mask,
            face,
            background,
            batch.window,
            batch.background_window,
            noise=noise,
        )


class MovingAverage:
    """Exponential moving average of weights (EMA), with a ramp for the first steps.

    Args:
        networks: What is averaged.
        decay: Of the average, once the ramp is over.
    """

    def __init__(self, networks: AvatarNetworks, decay: float) -> None:
        self.networks = copy.deepcopy(networks).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, networks: AvatarNetworks, step: int) -> None:
        """Takes in the weights after a step (counted from 0)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        averages = list(self.networks.parameters())
        current = list(networks.parameters())
        torch._foreach_lerp_(averages, current, 1.0 - decay)
        for average, buffer in zip(self.networks.buffers(), networks.buffers(), strict=True):
            average.copy_(buffer)
