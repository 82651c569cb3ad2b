# SPDX-License-Identifier: Apache-2.0
"""The five networks of the paper (Sec. 3.2-3.3): modules only, no files, no video, no training."""

from styleavatar_core.networks.ablations import ABLATIONS, PUBLISHED, TRIED, ablate
from styleavatar_core.networks.config import GeneratorConfig
from styleavatar_core.networks.discriminator import Discriminator
from styleavatar_core.networks.feature_generator import FeatureGenerator, FeatureMaps
from styleavatar_core.networks.mapping import MappingNetwork, position_code
from styleavatar_core.networks.noise import Noise, fixed_noise, sample_noise
from styleavatar_core.networks.portrait_generator import PortraitGenerator, PortraitOutput
from styleavatar_core.networks.presets import PRESETS, get_preset
from styleavatar_core.networks.style_unet import StyleUNet

__all__ = [
    "ABLATIONS",
    "PRESETS",
    "PUBLISHED",
    "TRIED",
    "Discriminator",
    "FeatureGenerator",
    "FeatureMaps",
    "GeneratorConfig",
    "MappingNetwork",
    "Noise",
    "PortraitGenerator",
    "PortraitOutput",
    "StyleUNet",
    "ablate",
    "fixed_noise",
    "get_preset",
    "position_code",
    "sample_noise",
]
