# SPDX-License-Identifier: Apache-2.0
"""Makes ``tests/data/avatar-schema-2.zip``, a bundle that every later version must load.

``python -m tests.fakes.tiny_bundle PATH`` made it once. When the schema changes, make another file
beside it; the old one stays, as users' avatars do. Its weights are random and show nobody.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from styleavatar_core.avatar.bundle import write_bundle
from styleavatar_core.data.picture import encode_jpeg
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.networks.config import (
    DiscriminatorConfig,
    FeatureGeneratorConfig,
    GeneratorConfig,
    StyleConfig,
    StyleUNetConfig,
)
from styleavatar_core.provenance.consent import make_consent
from tests.fakes.bundle import fake_manifest
from tests.fakes.networks import UntrainedAvatar

_MADE_TIME = datetime(2026, 11, 23, tzinfo=UTC)


def tiny_config() -> GeneratorConfig:
    """A topology of our presets' kind for pictures of 64 pixels, with as few weights as can be."""
    style = StyleConfig(style_dim=16, mapping_layer_count=2)
    return GeneratorConfig(
        name="tiny",
        image_size_px=64,
        feature_size=32,
        canvas_size=48,
        rendering_size_px=64,
        style=style,
        face=FeatureGeneratorConfig(style, 4, 8, (8, 2)),
        background=FeatureGeneratorConfig(style, 6, 8, (8, 4)),
        foreground=StyleUNetConfig(
            style,
            input_channels=0,
            pack_channels=48,
            top_size=24,
            encoder_channels=(4, 6, 6),
            decoder_channels=((6, 6), (4, 4), (4, 4)),
            skip_sizes=(24, 12),
        ),
        synthesis=StyleUNetConfig(
            style,
            input_channels=4 + 4 * 2,
            pack_channels=12,
            top_size=32,
            encoder_channels=(6, 8, 8),
            decoder_channels=((8, 8), (6, 6)),
            skip_sizes=(32, 16),
        ),
        discriminator=DiscriminatorConfig(64, (8, 8, 8, 8), 8),
        uv_supersampling=2,
    )


def write_tiny_bundle(path: Path) -> Path:
    """Writes the bundle."""
    config = tiny_config()
    avatar = UntrainedAvatar.make(config)
    model = builtin_model()
    manifest = fake_manifest(
        0,
        preset=config.name,
        style_time=0.5,
        generator=config.to_dict(),
        model_id=model.model_id,
        model_digest=model.digest,
        identity=[0.0] * model.identity_basis.shape[2],
        texture=[0.0] * model.texture_basis.shape[2],
        created_time=_MADE_TIME,
        consent=make_consent(
            "Random numbers have no face and nobody to ask.",
            subject="nobody",
            given_by="the tests",
            given_time=_MADE_TIME,
        ),
    )
    maps = {"face": avatar.face, "background": avatar.background}
    weights = {name: value.numpy() for name, value in avatar.generator.state_dict().items()}
    return write_bundle(
        path,
        manifest,
        generator=weights,
        features={
            f"{owner}.{name}": getattr(part, name).numpy()
            for owner, part in maps.items()
            for name in ("feature", "rgb_pack")
        },
        preview_jpeg=encode_jpeg(np.full((16, 16, 3), 128, np.uint8)),
    )


if __name__ == "__main__":
    write_tiny_bundle(Path(sys.argv[1]))
