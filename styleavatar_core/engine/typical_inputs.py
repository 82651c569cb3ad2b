# SPDX-License-Identifier: Apache-2.0
"""Conditioning as an avatar meets it in use, made from the statistics of its training frames."""

from __future__ import annotations

import numpy as np

from styleavatar_core.avatar.conditioning import Conditioning, ConditioningRenderer
from styleavatar_core.avatar.manifest import AvatarManifest
from styleavatar_core.avatar.statistics import ParameterStatistics, Spread
from styleavatar_core.engine.base import EngineInfo, RenderInput
from styleavatar_core.face3d.camera import quaternion_from_rotation_vector
from styleavatar_core.types import FaceParameters, FloatArray


def to_render_input(conditioning: Conditioning, info: EngineInfo) -> RenderInput:
    """Returns the conditioning as a batch of one, UV maps at the network's resolution.

    Args:
        conditioning: Of one frame.
        info: The engine that will render it.
    """
    step = info.rendering_size_px // info.uv_size
    return RenderInput(
        conditioning.texture_rendering[None],
        conditioning.uv_rendering[None, ::step, ::step],
        conditioning.face_mask[None, ::step, ::step],
    )


def typical_inputs(
    manifest: AvatarManifest, info: EngineInfo, count: int, *, seed: int = 0
) -> list[RenderInput]:
    """Draws frames as the avatar saw them in training.

    Args:
        manifest: The avatar's.
        info: The engine that will render them.
        count: Frames.
        seed: Of the draws.

    Returns:
        ``count`` batches of one.

    Raises:
        AssetError: The manifest's statistics cannot be read, or its face model is not here.
    """
    statistics = ParameterStatistics.from_dict(manifest.statistics)
    model, side = manifest.face_model(), info.rendering_size_px
    renderer = ConditioningRenderer(model, manifest.face_identity, side)
    rng = np.random.default_rng(seed)
    return [to_render_input(renderer.render(_draw(statistics, rng)), info) for _ in range(count)]


def _draw(statistics: ParameterStatistics, rng: np.random.Generator) -> FaceParameters:
    """Draws parameters, each within what training saw."""

    def one(spread: Spread) -> FloatArray:
        values = rng.normal(spread.mean, spread.std)
        return np.clip(values, spread.minimum, spread.maximum).astype(np.float32)

    translation = np.zeros(3, np.float32)
    translation[:2] = one(statistics.translation)
    return FaceParameters(
        statistics.model_id,
        quaternion_from_rotation_vector(one(statistics.rotation)),
        translation,
        max(0.05, float(one(statistics.scale)[0])),
        one(statistics.expression),
        one(statistics.eye_rotation).reshape(2, 2),
    )
