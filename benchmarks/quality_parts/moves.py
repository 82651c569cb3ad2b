# SPDX-License-Identifier: Apache-2.0
"""Heads moved beyond the clip (paper, Fig. 4), through what a user's live stream goes through."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np

from styleavatar_core.avatar.conditioning import ConditioningRenderer
from styleavatar_core.avatar.statistics import ParameterStatistics
from styleavatar_core.avatar.trained_range import TrainedRange
from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.data.spread import spread_evenly
from styleavatar_core.engine.avatar_renderer import AvatarRenderer
from styleavatar_core.evaluation.moves import (
    MOVES,
    MoveResult,
    NetworkFaces,
    RenderFace,
    measure_moves,
    move_figures,
)
from styleavatar_core.face3d.camera import parameters_in_crop
from styleavatar_core.tracking.landmarks import LandmarkDetector
from styleavatar_core.training.avatar_networks import AvatarNetworks
from styleavatar_core.training.samples.batches import FIXED_STYLE_TIME
from styleavatar_core.types import ByteArray, FaceParameters, FloatArray


def move_variant(
    dataset: AvatarDataset, networks: AvatarNetworks, bundle: Path | None, frame_count: int
) -> tuple[list[list[MoveResult]], dict[str, float]]:
    """Moves heads of an avatar as live streams do, or of networks that have no windows.

    Args:
        dataset: The clip.
        networks: What was trained on it.
        bundle: The avatar, if there is one; else the networks are looked at.
        frame_count: Of the held-out frames, so many.

    Returns:
        As :func:`move_heads`.
    """
    if bundle is None:
        info, size = dataset.info, networks.config.rendering_size_px
        conditioning = ConditioningRenderer(info.face_model(), info.face_identity, size)
        maps = networks.static_maps()
        return move_heads(
            dataset,
            NetworkFaces(networks.generator, maps, conditioning, FIXED_STYLE_TIME),
            frame_count,
        )
    with closing(AvatarRenderer(bundle)) as renderer:
        manifest = renderer.manifest
        statistics = ParameterStatistics.from_dict(manifest.statistics)
        held = TrainedRange(statistics, reach=manifest.reach)

        def render_live(parameters: FaceParameters) -> tuple[ByteArray, ByteArray]:
            frame = renderer.render(held.hold(parameters)[0])
            return frame.image, frame.mask

        return move_heads(dataset, render_live, frame_count)


def move_heads(
    dataset: AvatarDataset, render: RenderFace, frame_count: int
) -> tuple[list[list[MoveResult]], dict[str, float]]:
    """Moves the heads of some held-out frames to both sides, up and down, diagonally; tilts them.

    Args:
        dataset: The clip.
        render: Gives picture and mask of a face in the avatar's window.
        frame_count: Frames, evenly spread.

    Returns:
        The middle frame's results, one row for each direction, and figures over all frames.
    """
    frames = spread_evenly(dataset.held_out_indices, frame_count)
    shown: list[list[MoveResult]] = []
    figures: dict[str, float] = {}
    for name, rows in MOVES.items():
        results = []
        for place, index in enumerate(frames):
            face = parameters_in_crop(dataset.parameters[index], dataset.info.crop)
            for moves in rows:
                row = measure_moves(render, _detect, face, moves)
                results += row
                if place == len(frames) // 2:
                    shown.append(row)
        figures |= {f"{name}.{key}": value for key, value in move_figures(results).items()}
    return shown, figures


def _detect(image: ByteArray) -> FloatArray | None:
    """Finds the face, with a margin around the picture, which goes on as its border is.

    MediaPipe finds a face that the picture cuts off, or not, by where it lies to the pixel.
    """
    margin = image.shape[0] // 4  # as far as heads are moved
    with LandmarkDetector() as detector:
        found = detector.detect(np.pad(image, ((margin,) * 2, (margin,) * 2, (0, 0)), "edge"))
    return None if found is None else found - np.array([margin, margin, 0], np.float32)
