# SPDX-License-Identifier: Apache-2.0
"""A mesh in motion: where its vertices are, which way they face, how the fixed light falls on them.

Compiled, so that a mesh of tens of thousands of vertices costs a live frame little.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from styleavatar_core.face3d.camera import eye_matrix
from styleavatar_core.face3d.model import FaceModel
from styleavatar_core.types import FloatArray

# Irradiance of the fixed light in the first nine spherical harmonics of the normal (x right,
# y down, z away): from above, the front and a little from the left; the second order hardens it.
LIGHT = np.array([0.72, -0.10, -0.22, -0.34, 0.0, 0.05, -0.08, 0.03, -0.06], np.float32)

_BLOCK = 1024  # numbers that are moved at a time; blocks that a direction leaves alone are skipped
_LEVELS = 32767


class MovingMesh:
    """One person's mesh, moved by expression and gaze.

    Args:
        model: The face model.
        neutral: (V, 3) float32, from :meth:`FaceModel.neutral`.
    """

    def __init__(self, model: FaceModel, neutral: FloatArray) -> None:
        self._neutral = np.ascontiguousarray(neutral, np.float32)
        count = model.expression_basis.shape[-1]
        # One direction after the other: those at rest, usually half of them, are never read.
        # As 16-bit numbers, for a large mesh waits for memory; each is wrong by less than a
        # micrometre.
        directions = model.expression_basis.reshape(-1, count).T
        self._steps = np.maximum(np.abs(directions).max(axis=1), 1e-9) / np.float32(_LEVELS)
        self._directions = np.round(directions / self._steps[:, None]).astype(np.int16, order="C")
        starts = np.arange(0, self._directions.shape[1], _BLOCK)
        self._is_moved = np.maximum.reduceat(np.abs(self._directions), starts, axis=1) > 0
        self._eyes = []
        for start, stop in model.eye_vertices:
            center = self._neutral[start:stop].mean(axis=0)
            self._eyes.append((slice(start, stop), center, self._neutral[start:stop] - center))

    def vertices(self, expression: FloatArray, eye_rotation: FloatArray) -> FloatArray:
        """Does what :meth:`FaceModel.vertices` does.

        Args:
            expression: (E,) float32 coefficients.
            eye_rotation: (2, 2) float32 radians; rows left, right eye; columns pitch, yaw.

        Returns:
            (V, 3) float32, model space.
        """
        moved = self._neutral.copy()
        coefficients = np.asarray(expression, np.float32) * self._steps
        active = np.flatnonzero(coefficients)
        _move(moved.reshape(-1), self._directions, self._is_moved, coefficients, active)
        for (span, center, ball), (pitch, yaw) in zip(self._eyes, eye_rotation, strict=True):
            rotation = eye_matrix(float(pitch), float(yaw)).astype(np.float32)
            moved[span] = ball @ rotation.T + center
        return moved


def vertex_normals(faces: npt.NDArray[np.int32], points: FloatArray) -> FloatArray:
    """Computes vertex normals; each vertex sums the normals of its faces by area.

    Args:
        faces: (F, 3) int32, clockwise on the screen where they face the camera.
        points: (V, 3) float32.

    Returns:
        (V, 3) float32 outward unit normals; zero for vertices without a face.
    """
    normals = np.zeros((len(points), 3), np.float32)
    _sum_normals(faces, np.ascontiguousarray(points, np.float32), normals)
    return normals


def place(
    vertices: FloatArray, matrix: FloatArray, offset: FloatArray, size_px: int
) -> tuple[FloatArray, FloatArray]:
    """Lays a mesh into a square picture.

    Args:
        vertices: (V, 3) float32, model space.
        matrix: (3, 3) float32, of :func:`styleavatar_core.face3d.camera.projection`.
        offset: (3,) float32, likewise.
        size_px: Side of the square.

    Returns:
        (V, 3) float32 frame coordinates, and the same in pixels, as
        :func:`styleavatar_core.face3d.camera.to_pixels` has them.
    """
    points, pixels = np.empty_like(vertices), np.empty_like(vertices)
    _place(vertices, matrix, offset, np.float32(size_px / 2), points, pixels)
    return points, pixels


def light(albedo: FloatArray, normals: FloatArray) -> FloatArray:
    """Lets the fixed light fall on a mesh.

    Args:
        albedo: (V, 3) float32 RGB in [0, 1].
        normals: (V, 3) float32 unit normals, outward, frame axes.

    Returns:
        (V, 3) float32 RGB, not negative; bright places go beyond 1.
    """
    colors = np.empty_like(albedo)
    _light(albedo, normals, LIGHT, colors)
    return colors


def irradiance(normals: FloatArray) -> FloatArray:
    """Evaluates the fixed light.

    Args:
        normals: (V, 3) float32 unit normals, outward, frame axes.

    Returns:
        (V,) float32; 1 leaves the albedo as it is.
    """
    return light(np.ones((len(normals), 3), np.float32), normals)[:, 0]


@njit(cache=True, nogil=True)
def _move(moved, directions, is_moved, coefficients, active):  # noqa: ANN001, ANN202
    for block in range(is_moved.shape[1]):
        start, stop = block * _BLOCK, min((block + 1) * _BLOCK, len(moved))
        part = moved[start:stop]
        for n in active:
            if is_moved[n, block]:
                share, direction = coefficients[n], directions[n, start:stop]
                for i in range(len(part)):
                    part[i] += share * np.float32(direction[i])


@njit(cache=True, nogil=True)
def _sum_normals(faces, points, normals):  # noqa: ANN001, ANN202
    for f in range(faces.shape[0]):
        # Unsigned indices spare the test for negative ones.
        a, b, c = np.uintp(faces[f, 0]), np.uintp(faces[f, 1]), np.uintp(faces[f, 2])
        ux, uy, uz = (
            points[c, 0] - points[a, 0],
            points[c, 1] - points[a, 1],
            points[c, 2] - points[a, 2],
        )
        vx, vy, vz = (
            points[b, 0] - points[a, 0],
            points[b, 1] - points[a, 1],
            points[b, 2] - points[a, 2],
        )
        # (c - a) x (b - a): clockwise faces have their outward normal towards the camera.
        x, y, z = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for corner in (a, b, c):
            normals[corner, 0] += x
            normals[corner, 1] += y
            normals[corner, 2] += z
    for v in range(normals.shape[0]):
        x, y, z = normals[v, 0], normals[v, 1], normals[v, 2]
        length = np.sqrt(x * x + y * y + z * z)
        if length > 1e-12:
            normals[v, 0], normals[v, 1], normals[v, 2] = x / length, y / length, z / length


@njit(cache=True, nogil=True)
def _place(vertices, matrix, offset, half, points, pixels):  # noqa: ANN001, ANN202
    for v in range(len(vertices)):
        x, y, z = vertices[v, 0], vertices[v, 1], vertices[v, 2]
        for a in range(3):
            point = matrix[a, 0] * x + matrix[a, 1] * y + matrix[a, 2] * z + offset[a]
            points[v, a] = point
            pixels[v, a] = point * half + half if a < 2 else point * half


@njit(cache=True, nogil=True)
def _light(albedo, normals, light, colors):  # noqa: ANN001, ANN202
    for v in range(normals.shape[0]):
        x, y, z = normals[v, 0], normals[v, 1], normals[v, 2]
        value = light[0] + light[1] * x + light[2] * y + light[3] * z + light[4] * x * y
        squares = np.float32(3.0) * z * z - np.float32(1.0)  # plain numbers would make it float64
        value += light[5] * y * z + light[6] * squares + light[7] * x * z
        value = max(value + light[8] * (x * x - y * y), np.float32(0.0))
        for channel in range(3):
            colors[v, channel] = value * albedo[v, channel]
