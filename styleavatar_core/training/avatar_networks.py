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
from styleavatar_core.training.flat_weights import flat_weights
from styleavatar_core.training.samples.batches import Batch

_SHARED_IDENTITY = 0.0  # argument of z_id's code for nobody in particular, or for the only one
STARTS = ("face_start", "background_start")  # of a clip, not learned
_IDENTITY_STEP = 0.1  # between those of several clips


class AvatarNetworks(nn.Module):
    """Feature generators of face and background, and the portrait generator.

    Several clips share all weights (pre-training, Sec. 3.4); z_id tells their static maps apart.
    The RGB parts of these are what a generator gives added to a fixed picture of the clip, zero
    until :meth:`start_from` is told what the clip shows.

    Args:
        config: The preset.
        clip_count: How many clips are trained on.
    """

    face_start: torch.Tensor
    background_start: torch.Tensor

    def __init__(self, config: GeneratorConfig, clip_count: int = 1) -> None:
        super().__init__()
        self.config = config
        self.clip_count = clip_count
        self.face = FeatureGenerator(config.face, clip_count)
        self.background = FeatureGenerator(config.background, clip_count)
        self.generator = PortraitGenerator(config)
        for name, part in zip(STARTS, (config.face, config.background), strict=True):
            self.register_buffer(name, torch.zeros(clip_count, 12, part.size, part.size))

    def start_from(self, clip: int, texture: torch.Tensor, backplate: torch.Tensor) -> None:
        """Sets what the RGB parts of a clip's static maps start from.

        Args:
            clip: Which clip.
            texture: (1, 3, 2F, 2F) float32 in [-1, 1], colours of the face in UV space; F is the
                side of its map.
            backplate: (1, 3, 2G, 2G) float32 in [-1, 1], the canvas without the person; G is the
                side of the background's map.
        """
        self.face_start[clip].copy_(haar_transform(texture)[0])
        self.background_start[clip].copy_(haar_transform(backplate)[0])

    def static_maps(
        self, clip: int = 0, *, is_shared: bool = False
    ) -> tuple[FeatureMaps, FeatureMaps]:
        """Returns the maps of face and background, batch 1: the same for every frame of a clip.

        Args:
            clip: Which clip.
            is_shared: Whether z_id is that of nobody in particular instead of the clip's.
        """
        is_shared = is_shared or self.clip_count == 1
        identity = _SHARED_IDENTITY if is_shared else (clip + 1) * _IDENTITY_STEP
        code = self.code(self.face_start.new_tensor([identity]))
        face, background = self.face(code), self.background(code)
        own = slice(clip, clip + 1)
        # In fp32 whatever the networks ran in: bf16 could not tell neighbouring texels apart when
        # a map is looked up at coordinates of its own precision.
        return (
            FeatureMaps(face.feature.float(), face.rgb_pack + self.face_start[own]),
            FeatureMaps(
                background.feature.float(), background.rgb_pack + self.background_start[own]
            ),
        )

    def flat_weights(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Lays the weights into vectors: those of the feature generators, and the generator's."""
        return flat_weights(self.face) + flat_weights(self.background), flat_weights(self.generator)

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
        if maps is None:
            maps = self.static_maps(batch.clip, is_shared=batch.has_shared_identity)
        face, background = maps
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
        static, generator = self.networks.flat_weights()
        self._averages = static + generator
        self._decay = decay

    @torch.no_grad()
    def update(self, networks: AvatarNetworks, weights: list[nn.Parameter], step: int) -> None:
        """Takes in the networks after a step.

        Args:
            networks: Their buffers count as they are.
            weights: Their :meth:`~AvatarNetworks.flat_weights`, in that order.
            step: Which step it was, counted from 0.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        for average, current in zip(self._averages, weights, strict=True):
            average.lerp_(current, 1.0 - decay)
        for own, buffer in zip(self.networks.buffers(), networks.buffers(), strict=True):
            own.copy_(buffer)
