# SPDX-License-Identifier: Apache-2.0
"""A head tilted to the side: the same picture, turned about the neck, before a body that stays.

The camera is scaled orthographic (``face3d.camera``), so that is exact for the head: no other part
of it comes into view. The neck bends between chin and shoulders.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from styleavatar_core.face3d.camera import (
    matrix_from_quaternion,
    project,
    quaternion_from_matrix,
    quaternion_from_rotation_vector,
    to_pixels,
)
from styleavatar_core.types import FaceParameters, FloatArray

_NECK = np.array([[0.0, 0.9, 0.0]], np.float32)  # model space, decimetres: just below the chin
_HEAD, _BODY = -0.15, 0.25  # below the neck, decimetres: all above is tilted, nothing further down


def tilt_head(parameters: FaceParameters, degrees: float) -> FaceParameters:
    """Returns the same face with the head tilted.

    Args:
        parameters: The face.
        degrees: By how much, clockwise on the screen.
    """
    roll = quaternion_from_rotation_vector(np.array([0.0, 0.0, np.deg2rad(degrees)]))
    rotation = matrix_from_quaternion(roll) @ matrix_from_quaternion(parameters.rotation)
    neck = project(_NECK, parameters)[0] / parameters.scale
    return replace(
        parameters,
        rotation=quaternion_from_matrix(rotation),
        translation=(neck - rotation @ _NECK[0]).astype(np.float32),
    )


def tilt_matrix(parameters: FaceParameters, degrees: float, side_px: int) -> FloatArray:
    """Returns how the picture turns when the head tilts.

    Args:
        parameters: The face, in the coordinates of the picture.
        degrees: By how much, clockwise on the screen.
        side_px: Side of the square picture.

    Returns:
        (2, 3) float64, from old to new pixel indices.
    """
    x, y = _neck_px(parameters, side_px)
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([turn, np.array([x, y]) - turn @ [x, y]])


def tilt_sources(
    parameters: FaceParameters, degrees: float, side_px: int
) -> tuple[FloatArray, FloatArray]:
    """Returns where each pixel of the tilted person's picture comes from, for ``cv2.remap``.

    Args:
        parameters: The face, in the coordinates of the picture.
        degrees: By how much the head is tilted, clockwise on the screen.
        side_px: Side of the square picture.

    Returns:
        x and y, pixel indices of the picture as it was, (side_px, side_px) float32.
    """
    x, y = _neck_px(parameters, side_px)
    index = np.arange(side_px, dtype=np.float32)
    right, below = (index - x)[None], (index - y)[:, None]
    depth = below / (parameters.scale * side_px / 2)  # decimetres
    share = ((depth - _HEAD) / (_BODY - _HEAD)).clip(0.0, 1.0)
    turn = np.deg2rad(degrees) * (1.0 - share**2 * (3.0 - 2.0 * share))  # (side_px, 1)
    cosine, sine = np.cos(turn), np.sin(turn)
    sources = x + cosine * right + sine * below, y - sine * right + cosine * below
    return sources[0].astype(np.float32), sources[1].astype(np.float32)


def _neck_px(parameters: FaceParameters, side_px: int) -> tuple[float, float]:
    """Returns the pixel indices of the neck; a pixel's index is its centre's."""
    x, y = to_pixels(project(_NECK, parameters)[:, :2], side_px, side_px)[0].tolist()
    return x - 0.5, y - 0.5
