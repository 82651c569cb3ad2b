# SPDX-License-Identifier: Apache-2.0
"""Conditioning as an avatar meets it in use: as its training frames were, or its held-out ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from styleavatar_core.avatar.bundle import AvatarBundle
from styleavatar_core.avatar.conditioning import Conditioning, ConditioningRenderer
from styleavatar_core.avatar.manifest import AvatarManifest
from styleavatar_core.avatar.statistics import ParameterStatistics, Spread
from styleavatar_core.data.spread import spread_evenly
from styleavatar_core.engine.base import EngineInfo, RenderInput
from styleavatar_core.face3d.camera import quaternion_from_rotation_vector
from styleavatar_core.types import ByteArray, FaceParameters, FloatArray


def to_render_input(
    conditioning: Conditioning, info: EngineInfo, manifest: AvatarManifest
) -> RenderInput:
    """Returns the conditioning as a batch of one, UV maps at the network's resolution.

    Args:
        conditioning: Of one frame.
        info: The engine that will render it.
        manifest: The avatar's; networks of the published code see the face without its rim.
    """
    step = info.rendering_size_px // info.uv_size
    mask = conditioning.face_mask[::step, ::step]
    return RenderInput(
        conditioning.texture_rendering[None],
        conditioning.uv_rendering[None, ::step, ::step],
        (_without_rim(mask) if manifest.is_imported else mask)[None],
    )


def _without_rim(mask: ByteArray) -> ByteArray:
    """Takes those texels away that have a neighbour in a row or column outside the mask."""
    wide = np.pad(mask, 1, mode="edge")
    beside = (wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:])
    return np.minimum.reduce([mask, *beside])


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
    rng = np.random.default_rng(seed)
    return _seen([draw_parameters(statistics, rng) for _ in range(count)], info, manifest)


def judged_inputs(bundle: AvatarBundle, info: EngineInfo, count: int) -> list[RenderInput]:
    """Returns frames that an avatar's engines are judged by: of its video, never trained on.

    Typical ones are taken if the bundle has none.

    Args:
        bundle: The avatar.
        info: The engine that will render them.
        count: Frames, at most.

    Returns:
        Batches of one.

    Raises:
        AssetError: The bundle is damaged, or its face model is not here.
    """
    frames = bundle.held_out()
    if not frames:
        return typical_inputs(bundle.manifest, info, count)
    return _seen(spread_evenly(frames, count), info, bundle.manifest)


def _seen(
    frames: Sequence[FaceParameters], info: EngineInfo, manifest: AvatarManifest
) -> list[RenderInput]:
    """Returns what the networks see of faces in the avatar's window."""
    model, side = manifest.face_model(), info.rendering_size_px
    renderer = ConditioningRenderer(model, manifest.face_identity, side)
    return [to_render_input(renderer.render(face), info, manifest) for face in frames]


def draw_parameters(statistics: ParameterStatistics, rng: np.random.Generator) -> FaceParameters:
    """Draws parameters in the avatar's window, each within what training saw.

    Args:
        statistics: Of the training.
        rng: Source of the draws.
    """

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
