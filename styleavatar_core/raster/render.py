# SPDX-License-Identifier: Apache-2.0
"""Texture rendering and UV rendering of a posed face (paper, Sec. 3.1).

The texture rendering uses one fixed light, "in order to accentuate facial expression changes".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from styleavatar_core.face3d.camera import project, to_pixels
from styleavatar_core.face3d.model import FaceModel
from styleavatar_core.raster.software import interpolate, rasterize
from styleavatar_core.types import ByteArray, FaceParameters, FloatArray

# Irradiance of the fixed light in the first nine spherical harmonics of the normal (x right,
# y down, z away): from above, the front and a little from the left; the second order hardens it.
_LIGHT = np.array([0.72, -0.10, -0.22, -0.34, 0.0, 0.05, -0.08, 0.03, -0.06], np.float32)

# Eyeballs are drawn this much (decimetres) behind where they are, so that a closed lid hides them
# even where the landmarks' depth is a guess. Their place in the image does not change.
_EYEBALL_DEPTH = 0.1


@dataclass(frozen=True, slots=True)
class FaceRendering:
    """A face drawn into a square.

    Attributes:
        texture: (S, S, 3) uint8 RGB, black where there is no face.
        uv: (S, S, 2) float32 in [0, 1], zero where there is no face.
        mask: (S, S) uint8, 1 where there is a face or an eyeball.
    """

    texture: ByteArray
    uv: FloatArray
    mask: ByteArray


class FaceRenderer:
    """Draws one face model; keeps what does not change from frame to frame.

    Args:
        model: The face model.
        albedo: (V, 3) float32 RGB in [0, 1].
        size_px: Side of the square image.
    """

    def __init__(self, model: FaceModel, albedo: FloatArray, size_px: int) -> None:
        self._model = model
        self._albedo = albedo
        self._size_px = size_px

    def render(self, vertices: FloatArray, params: FaceParameters) -> FaceRendering:
        """Draws a moved face.

        Args:
            vertices: (V, 3) float32, model space.
            params: Pose in the coordinates of the square.
        """
        model, size = self._model, self._size_px
        points = project(vertices, params)
        normals = vertex_normals(model.faces, points)
        colors = self._albedo * irradiance(normals)[:, None]
        points = to_pixels(points, size, size)
        for start, stop in model.eye_vertices:
            points[start:stop, 2] += _EYEBALL_DEPTH * params.scale * size / 2
        fragments = rasterize(points, model.faces, size, size)
        attributes = np.concatenate([np.clip(colors, 0, 1) * 255, model.uv_coordinates], axis=1)
        image = interpolate(fragments, model.faces, attributes)
        return FaceRendering(
            texture=(image[..., :3] + 0.5).astype(np.uint8),
            uv=np.ascontiguousarray(image[..., 3:]),
            mask=(fragments.face_index >= 0).astype(np.uint8),
        )


def irradiance(normals: FloatArray) -> FloatArray:
    """Evaluates the fixed light.

    Args:
        normals: (V, 3) float32 unit normals, outward, frame axes.

    Returns:
        (V,) float32; 1 leaves the albedo as it is.
    """
    x, y, z = normals[:, 0], normals[:, 1], normals[:, 2]
    basis = (np.ones_like(x), x, y, z, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y)
    return np.maximum(np.stack(basis, axis=1) @ _LIGHT, 0.0)


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


@njit(cache=True, nogil=True)
def _sum_normals(faces, points, normals):  # noqa: ANN001, ANN202
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
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
