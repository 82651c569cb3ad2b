# SPDX-License-Identifier: Apache-2.0
"""Complete avatar bundles without a trained network, for renderers that only read the manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from styleavatar_core.avatar.bundle import write_bundle
from styleavatar_core.avatar.manifest import AvatarManifest, AvatarMethods, AvatarSource
from styleavatar_core.avatar.statistics import ParameterStatistics
from styleavatar_core.provenance.consent import make_consent
from styleavatar_core.types import CropBox, FaceParameters
from tests.fakes.renderer import BEHAVIOR_NAME, IMAGE_SIZE_PX


def wide_statistics() -> ParameterStatistics:
    """Statistics of a training that saw everything, so that nothing is clamped."""
    extremes = [
        FaceParameters(
            model_id="builtin-3",
            rotation=np.array([1, sign, 0, 0], np.float32) / np.sqrt(2, dtype=np.float32),
            translation=np.array([sign * 9, sign * 9, 0], np.float32),
            scale=1.0 + 0.9 * sign,
            expression=np.full(52, 0.5 + 0.5 * sign, np.float32),
            eye_rotation=np.full((2, 2), sign, np.float32),
        )
        for sign in (-1, 1)
    ]
    return ParameterStatistics.from_parameters(extremes, CropBox(0.0, 0.0, 0.5))


def fake_manifest(mark: int, **changes: Any) -> AvatarManifest:
    """A valid manifest; ``mark`` travels as ``style_time``."""
    values: dict[str, Any] = {
        "preset": "nano",
        "generator": {"image_size_px": IMAGE_SIZE_PX},
        "style_time": float(mark),
        "model_id": "builtin-3",
        "identity": [0.5, -0.25],
        "texture": [0.125],
        "window": (0.0, 0.0, 0.5),
        "statistics": wide_statistics().to_dict(),
        "consent": make_consent(
            "A made-up face cannot object to being used in tests.",
            subject="nobody",
            given_by="the tests",
            source_description="computed",
        ),
        "source": AvatarSource(
            file_name="none.mp4",
            sha256="0" * 64,
            width=64,
            height=64,
            fps=25.0,
            train_frame_count=80,
            held_out_frame_count=20,
        ),
        "methods": AvatarMethods(landmarks="none", matting="none", perceptual_loss="none"),
    }
    return AvatarManifest(**{**values, **changes})


def write_fake_bundle(
    path: Path, mark: int, behavior: dict[str, Any] | None = None, **changes: Any
) -> Path:
    """Writes a bundle for ``FakeRenderer``."""
    nothing = {"none": np.zeros(1, np.float32)}
    write_bundle(
        path, fake_manifest(mark, **changes), generator=nothing, features=nothing, preview_jpeg=b"-"
    )
    if behavior:
        (path / BEHAVIOR_NAME).write_text(json.dumps(behavior))
    return path
