# SPDX-License-Identifier: Apache-2.0
"""Untrained networks whose every path matters, and inputs for them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from styleavatar_core.networks import (
    FeatureGenerator,
    FeatureMaps,
    GeneratorConfig,
    PortraitGenerator,
)
from styleavatar_core.ops.upfirdn2d import IMAGE_TAPS


def published_options(config: GeneratorConfig) -> GeneratorConfig:
    """A preset of ours with four taps, noise, added nearest samples: as the published topology."""
    style = replace(config.style, taps=IMAGE_TAPS, has_unused_noise=True)
    features = config.background.feature_channels
    synthesis = replace(
        config.synthesis, style=style, noise_sizes=(config.feature_size,), input_channels=features
    )
    return replace(
        config,
        style=style,
        face=replace(config.face, channels=(*config.face.channels[:-1], features)),
        foreground=replace(config.foreground, style=style),
        synthesis=synthesis,
        uv_supersampling=1,
        uv_sampling="nearest",
        face_composition="add",
        window_sampling="linspace",
        mask_gain=1.1,
        has_fused_rgb_output=False,
    )


def shake(module: nn.Module, seed: int = 0) -> None:
    """Moves biases and noise strengths, which start at zero, away from it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith(("bias", "noise.weight")):
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


@dataclass
class UntrainedAvatar:
    """Generator and static maps of a preset."""

    config: GeneratorConfig
    generator: PortraitGenerator
    face: FeatureMaps
    background: FeatureMaps
    style: torch.Tensor

    @classmethod
    def make(cls, config: GeneratorConfig, seed: int = 0) -> UntrainedAvatar:
        torch.manual_seed(seed)
        generator = PortraitGenerator(config)
        shake(generator)
        style = torch.randn(1, config.style.style_dim)
        with torch.no_grad():
            face = FeatureGenerator(config.face).eval()(style)
            background = FeatureGenerator(config.background).eval()(style)
        return cls(config, generator, face, background, style)

    def inputs(self, batch_size: int, seed: int = 1) -> dict[str, torch.Tensor]:
        """Random rendering, UV and face mask, as the generator takes them."""
        generator = torch.Generator().manual_seed(seed)
        size, uv_size = self.config.rendering_size_px, self.config.uv_size
        rendering = torch.randint(0, 256, (batch_size, 3, size, size), generator=generator)
        mask = torch.zeros(batch_size, 1, uv_size, uv_size)
        mask[..., uv_size // 4 : uv_size // 2, uv_size // 4 : uv_size // 2] = 1
        return {
            "rendering": rendering / 127.5 - 1,
            "uv": torch.rand(batch_size, 2, uv_size, uv_size, generator=generator),
            "face_mask": mask,
        }
