# SPDX-License-Identifier: Apache-2.0
"""From a bundle on disk to a frozen generator in memory."""

from __future__ import annotations

import torch

from styleavatar_core.avatar.bundle import AvatarBundle
from styleavatar_core.engine.freeze import FrozenGenerator, freeze
from styleavatar_core.errors import AssetError
from styleavatar_core.networks.config import GeneratorConfig
from styleavatar_core.networks.feature_generator import FeatureMaps
from styleavatar_core.networks.mapping import position_code
from styleavatar_core.networks.noise import sample_noise
from styleavatar_core.networks.portrait_generator import PortraitGenerator

_NOISE_SEED = 0  # the fixed noise of inference (paper, Sec. 3.3)


def load_frozen(bundle: AvatarBundle) -> FrozenGenerator:
    """Builds a bundle's generator and freezes it.

    Args:
        bundle: The bundle.

    Returns:
        The frozen generator, on the CPU.

    Raises:
        AssetError: Weights and configuration do not fit together.
    """
    config = GeneratorConfig.from_dict(bundle.manifest.generator)
    with torch.device("meta"):
        generator = PortraitGenerator(config)
    state = {name: torch.from_numpy(array) for name, array in bundle.generator().items()}
    try:
        generator.load_state_dict(state, assign=True)
        maps = {name: torch.from_numpy(array) for name, array in bundle.features().items()}
        face = FeatureMaps(maps["face.feature"], maps["face.rgb_pack"])
        background = FeatureMaps(maps["background.feature"], maps["background.rgb_pack"])
    except (RuntimeError, KeyError) as error:
        raise AssetError(
            f"the weights in {bundle.path.name} do not fit its preset '{config.name}'; "
            f"create the avatar again ({str(error).splitlines()[0]})"
        ) from error
    style_time = torch.tensor([bundle.manifest.style_time])
    style = position_code(style_time, config.style.style_dim, config.position_octaves)
    noise = sample_noise(config, generator=torch.Generator().manual_seed(_NOISE_SEED))
    return freeze(generator, style, face, background, noise=noise, is_used_up=True)
