# SPDX-License-Identifier: Apache-2.0
"""A real bundle of the smallest preset whose networks have never been trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from styleavatar_core.avatar.bundle import write_bundle
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.networks.feature_generator import FeatureGenerator
from styleavatar_core.networks.portrait_generator import PortraitGenerator
from styleavatar_core.networks.presets import get_preset
from tests.fakes.bundle import fake_manifest


def write_nano_bundle(path: Path, seed: int = 0, preset: str = "nano", **changes: Any) -> Path:
    """Writes the bundle, if asked of another preset; the same seed gives the same pictures.

    ``changes`` are of the manifest.
    """
    config = get_preset(preset)
    torch.manual_seed(seed)
    generator = PortraitGenerator(config)
    features = {}
    for name, part in (("face", config.face), ("background", config.background)):
        with torch.no_grad():
            maps = FeatureGenerator(part)(torch.zeros(1, config.style.style_dim))
        features[f"{name}.feature"] = maps.feature.numpy()
        features[f"{name}.rgb_pack"] = maps.rgb_pack.numpy()
    model = builtin_model()
    manifest = fake_manifest(
        0,
        preset=preset,
        style_time=0.5,
        generator=config.to_dict(),
        identity=[0.0] * model.identity_basis.shape[2],
        texture=[0.0] * model.texture_basis.shape[2],
        **changes,
    )
    weights = {name: value.numpy() for name, value in generator.state_dict().items()}
    return write_bundle(path, manifest, generator=weights, features=features, preview_jpeg=b"none")
