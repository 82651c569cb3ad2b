# SPDX-License-Identifier: Apache-2.0
"""What some FaceVerse files lack: MediaPipe's landmarks, eyeballs, UV, our winding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.interpolate import RBFInterpolator
from scipy.spatial import cKDTree

from styleavatar_core.face3d.alignment import align
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.model import VERTEX_ARRAYS, FaceModel
from styleavatar_core.types import FloatArray

IntArray = npt.NDArray[np.int64]
EyeRanges = tuple[tuple[int, int], tuple[int, int]]

# MediaPipe's landmark for each of the 68 that face alignment has used since 300-W.
_OF_68 = (
    127, 234, 93, 132, 58, 136, 150, 176, 152, 400, 379, 365, 288, 361, 323, 454, 356,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300, 168, 197, 5, 4, 98, 97, 2, 326, 327,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip

_HEAD_HEIGHT = 0.79  # of the UV square; the eyeballs are two discs below
_EYE_DISCS = ((0.75, 0.895), (0.25, 0.895))
_EYE_DISC_RADIUS = 0.095


def landmarks_from_68(mean: FloatArray, corners: IntArray) -> IntArray:
    """Finds MediaPipe's landmarks on a mesh of which 68 are known.

    The built-in mean face is bent onto the 68; its other landmarks take the nearest vertex.

    Args:
        mean: (V, 3) float64 mean shape, its own axes and units.
        corners: (68,) vertices.

    Returns:
        (478,) vertices; irises, which the mesh has not, name the eye corners.
    """
    builtin = builtin_model()
    points = builtin.mean_shape[builtin.landmark_indices[:468]].astype(np.float64)
    place = align(points[list(_OF_68)], mean[corners])
    moved = place.apply(points)
    bend = RBFInterpolator(moved[list(_OF_68)], mean[corners], smoothing=1e-6)
    _, vertices = cKDTree(mean).query(bend(moved))
    vertices[list(_OF_68)] = corners
    return np.concatenate([vertices, vertices[[33] * 5 + [263] * 5]])


def turned_to_camera(
    faces: npt.NDArray[np.int32], shape: FloatArray, landmarks: IntArray
) -> npt.NDArray[np.int32]:
    """Winds all faces so that those of the face look at the camera."""
    around = faces[np.isin(faces, landmarks).any(axis=1)]
    a, b, c = (shape[around[:, corner]] for corner in range(3))
    towards = -np.cross(c - a, b - a)[:, 2].sum()
    return np.ascontiguousarray(faces if towards > 0 else faces[:, ::-1])


def cylinder_uv(shape: FloatArray, eyes: EyeRanges) -> FloatArray:
    """Unwraps a head onto a cylinder and its eyeballs onto discs, (V, 2) float64 in [0, 1]."""
    middle = (shape.min(axis=0) + shape.max(axis=0)) / 2
    angle = np.arctan2(shape[:, 0] - middle[0], middle[2] - shape[:, 2])
    height = (shape[:, 1] - shape[:, 1].min()) / np.ptp(shape[:, 1])
    uv = np.stack([0.5 + angle / (2 * np.pi), _HEAD_HEIGHT * height], axis=1)
    for (start, stop), center in zip(eyes, _EYE_DISCS, strict=True):
        if stop > start:
            ball = shape[start:stop] - shape[start:stop].mean(axis=0)
            across = np.linalg.norm(ball[:, :2], axis=1)
            reach = np.arctan2(across, -ball[:, 2]) / np.pi * _EYE_DISC_RADIUS
            uv[start:stop] = (
                center + ball[:, :2] / np.maximum(across, 1e-9)[:, None] * reach[:, None]
            )
    return uv


def grafted_eyes(model: FaceModel, donor: FaceModel) -> FaceModel:
    """Puts the donor's eyeballs into a model that has none; they follow the person's eyes.

    Args:
        model: Has no eyeballs; in our axes and units.
        donor: Its mean eyes sit where the model's do, within the width of a lid.
    """
    parts = {name: [getattr(model, name)] for name in VERTEX_ARRAYS}
    faces, landmarks = [model.faces], model.landmark_indices.copy()
    ranges: list[tuple[int, int]] = []
    total = len(model.mean_shape)
    corners = ((263, 362), (33, 133))
    for (start, stop), pair, irises in zip(
        donor.eye_vertices, corners, (range(473, 478), range(468, 473)), strict=True
    ):
        count, span = stop - start, slice(start, stop)
        own, theirs = model.landmark_indices[list(pair)], donor.landmark_indices[list(pair)]
        shift = model.mean_shape[own].mean(axis=0) - donor.mean_shape[theirs].mean(axis=0)
        follow = model.identity_basis[own].mean(axis=0)
        uv = donor.uv_coordinates[span]
        for name, rows in (
            ("mean_shape", donor.mean_shape[span] + shift),
            ("identity_basis", np.broadcast_to(follow, (count, *follow.shape))),
            ("expression_basis", np.zeros((count, *model.expression_basis.shape[1:]))),
            ("mean_texture", donor.mean_texture[span]),
            ("texture_basis", np.zeros((count, *model.texture_basis.shape[1:]))),
            ("uv_coordinates", uv),
        ):
            parts[name].append(rows.astype(np.float32))
        inside = ((donor.faces >= start) & (donor.faces < stop)).all(axis=1)
        faces.append((donor.faces[inside] - start + total).astype(np.int32))
        for landmark in irises:
            landmarks[landmark] = donor.landmark_indices[landmark] - start + total
        ranges.append((total, total + count))
        total += count
    arrays: dict[str, Any] = {name: np.concatenate(rows) for name, rows in parts.items()}
    return replace(
        model,
        faces=np.concatenate(faces),
        landmark_indices=landmarks,
        eye_vertices=(ranges[0], ranges[1]),
        **arrays,
    )
