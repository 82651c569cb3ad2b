# SPDX-License-Identifier: Apache-2.0
"""The camera, written once (paper, Eq. 1): scaled orthographic, ``scale * (R v + translation)``.

Axes and units are those of ``docs/conventions.md``: x right, y down, z away from the camera; model
units are decimetres; frame units are half frame heights with the origin at the frame centre.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from styleavatar_core.types import CropBox, FaceParameters, FloatArray


def project(vertices: FloatArray, params: FaceParameters) -> FloatArray:
    """Projects model vertices into the frame.

    Args:
        vertices: (V, 3) float32, model space, decimetres.
        params: Pose of the head in this frame.

    Returns:
        (V, 3) float32, frame coordinates; z grows away from the camera on the scale of x and y.
    """
    matrix, offset = projection(params)
    points = np.asarray(vertices, np.float32) @ matrix.T
    points += offset
    return points


def projection(params: FaceParameters) -> tuple[FloatArray, FloatArray]:
    """Returns the (3, 3) float32 matrix and the (3,) float32 offset that project a vertex."""
    matrix = params.scale * matrix_from_quaternion(params.rotation)
    offset = params.scale * np.asarray(params.translation, np.float64)
    return matrix.astype(np.float32), offset.astype(np.float32)


def to_pixels(points: FloatArray, width: int, height: int) -> FloatArray:
    """Turns frame coordinates into pixels; the centre of pixel (i, j) is at (i + 0.5, j + 0.5).

    Args:
        points: (N, 2) or (N, 3), frame coordinates.
        width: Frame width, pixels.
        height: Frame height, pixels.

    Returns:
        Same shape, float32: x and y in pixels, z (if any) scaled alike.
    """
    pixels = np.asarray(points, np.float32) * np.float32(height / 2)
    pixels[:, 0] += width / 2
    pixels[:, 1] += height / 2
    return pixels


def from_pixels(pixels: FloatArray, width: int, height: int) -> FloatArray:
    """Turns pixels into frame coordinates; the inverse of :func:`to_pixels`."""
    points = np.array(pixels, np.float32)
    points[:, 0] -= width / 2
    points[:, 1] -= height / 2
    return points / np.float32(height / 2)


def parameters_in_crop(params: FaceParameters, crop: CropBox) -> FaceParameters:
    """Expresses parameters in the coordinates of a square part of the frame.

    In a square image half its height is half its side, so the square's own frame coordinates are
    the frame's, moved by the crop's centre and divided by its half size.

    Args:
        params: Parameters in frame coordinates.
        crop: The square, in the same frame coordinates.

    Returns:
        The same head, seen in the square's coordinates.
    """
    offset = np.array([crop.center_x, crop.center_y, 0.0], np.float32) / np.float32(params.scale)
    return replace(
        params,
        scale=float(params.scale / crop.half_size),
        translation=np.asarray(params.translation, np.float32) - offset,
    )


def matrix_from_quaternion(quaternion: FloatArray) -> FloatArray:
    """Returns the (3, 3) float64 rotation of a (4,) unit quaternion wxyz."""
    w, x, y, z = np.asarray(quaternion, np.float64) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion_from_matrix(matrix: FloatArray) -> FloatArray:
    """Returns the (4,) float32 unit quaternion wxyz, w >= 0, of a (3, 3) rotation."""
    m = np.asarray(matrix, np.float64)
    # The largest of the four squared components keeps the division well conditioned.
    squares = np.array(
        [
            1 + m[0, 0] + m[1, 1] + m[2, 2],
            1 + m[0, 0] - m[1, 1] - m[2, 2],
            1 - m[0, 0] + m[1, 1] - m[2, 2],
            1 - m[0, 0] - m[1, 1] + m[2, 2],
        ]
    )
    products = np.array(
        [
            [squares[0], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], squares[1], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]],
            [m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], squares[2], m[1, 2] + m[2, 1]],
            [m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], squares[3]],
        ]
    )
    quaternion = products[int(np.argmax(squares))]
    quaternion = quaternion / np.linalg.norm(quaternion)
    return (quaternion if quaternion[0] >= 0 else -quaternion).astype(np.float32)


def rotation_vector_from_quaternion(quaternion: FloatArray) -> FloatArray:
    """Returns the (3,) float32 rotation vector (axis times angle, radians)."""
    w, x, y, z = quaternion.tolist()  # for each live frame: quicker than arrays of four
    if w < 0:
        w, x, y, z = -w, -x, -y, -z
    sine = math.hypot(x, y, z)
    factor = 2.0 if sine < 1e-9 else 2.0 * math.atan2(sine, w) / sine
    return np.array([factor * x, factor * y, factor * z], np.float32)


def quaternion_from_rotation_vector(vector: FloatArray) -> FloatArray:
    """Returns the (4,) float32 unit quaternion wxyz of a (3,) rotation vector, radians."""
    v = np.asarray(vector, np.float64)
    angle = np.linalg.norm(v)
    factor = 0.5 if angle < 1e-9 else np.sin(angle / 2) / angle
    quaternion = np.concatenate([[np.cos(angle / 2)], v * factor])
    return (quaternion if quaternion[0] >= 0 else -quaternion).astype(np.float32)


def eye_matrix(pitch: float, yaw: float) -> FloatArray:
    """Returns the (3, 3) float64 rotation of an eyeball in the head.

    Args:
        pitch: Radians, down positive.
        yaw: Radians, towards image right positive for a frontal face.
    """
    cp, sp, cy, sy = np.cos(pitch), np.sin(pitch), np.cos(yaw), np.sin(yaw)
    turn = np.array([[cy, 0.0, -sy], [0.0, 1.0, 0.0], [sy, 0.0, cy]])
    nod = np.array([[1.0, 0.0, 0.0], [0.0, cp, -sp], [0.0, sp, cp]])
    return turn @ nod
