# SPDX-License-Identifier: Apache-2.0
"""A compiled software rasterizer: z-buffer, pixel centres, no GL libraries and no C compiler.

Compiled by numba at the first call and cached on disk beside the source; call :func:`warm_up` where
that first second must not surprise. Releases the GIL.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from styleavatar_core.types import ByteArray, FloatArray

IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Fragments:
    """What covers each pixel.

    Attributes:
        face_index: (H, W) int32. Index of the nearest face, -1 where none covers the pixel centre.
        barycentric: (H, W, 3) float32 in [0, 1]. Sums to 1 on covered pixels, 0 elsewhere.
    """

    face_index: IntArray
    barycentric: FloatArray


def rasterize(points: FloatArray, faces: IntArray, width: int, height: int) -> Fragments:
    """Finds the nearest face at every pixel centre; faces seen from behind are left out.

    Args:
        points: (V, 3) float32: x, y in pixels (pixel (i, j) has its centre at (i + 0.5, j + 0.5)),
            z growing away from the camera.
        faces: (F, 3) int32, clockwise on the screen (y down) where they face the camera.
        width: Image width, pixels.
        height: Image height, pixels.
    """
    face_index = np.full((height, width), -1, np.int32)
    barycentric = np.zeros((height, width, 3), np.float32)
    depth = np.full((height, width), np.inf, np.float32)
    _rasterize(np.ascontiguousarray(points, np.float32), faces, face_index, barycentric, depth)
    return Fragments(face_index, barycentric)


def interpolate(fragments: Fragments, faces: IntArray, attributes: FloatArray) -> FloatArray:
    """Interpolates vertex attributes over the covered pixels.

    Args:
        fragments: From :func:`rasterize`.
        faces: (F, 3) int32, the same faces.
        attributes: (V, C) float32.

    Returns:
        (H, W, C) float32, zero where nothing covers the pixel.
    """
    height, width = fragments.face_index.shape
    image = np.zeros((height, width, attributes.shape[1]), np.float32)
    values = np.ascontiguousarray(attributes, np.float32)
    _interpolate(fragments.face_index, fragments.barycentric, faces, values, image)
    return image


def shade(
    fragments: Fragments, faces: IntArray, colors: FloatArray, uv_coordinates: FloatArray
) -> tuple[ByteArray, FloatArray, ByteArray]:
    """Draws what the fragments show: :func:`interpolate` in the types that are wanted.

    Args:
        fragments: From :func:`rasterize`.
        faces: (F, 3) int32, the same faces.
        colors: (V, 3) float32 RGB; what is beyond [0, 1] is cut off.
        uv_coordinates: (V, 2) float32.

    Returns:
        (H, W, 3) uint8 RGB, (H, W, 2) float32 UV and (H, W) uint8 mask, zero where nothing
        covers the pixel.
    """
    height, width = fragments.face_index.shape
    image = np.zeros((height, width, 3), np.uint8)
    uv = np.zeros((height, width, 2), np.float32)
    mask = np.zeros((height, width), np.uint8)
    bytes_ = np.clip(colors, 0.0, 1.0) * np.float32(255)
    _shade(
        fragments.face_index, fragments.barycentric, faces, bytes_, uv_coordinates, image, uv, mask
    )
    return image, uv, mask


def warm_up() -> None:
    """Compiles the kernels (a few seconds at most, once per machine)."""
    points = np.array([[0, 0, 0], [4, 0, 0], [4, 4, 0]], np.float32)
    faces = np.array([[0, 1, 2]], np.int32)
    fragments = rasterize(points, faces, 4, 4)
    shade(fragments, faces, points, points[:, :2].copy())
    interpolate(fragments, faces, points)


@njit(cache=True, nogil=True, error_model="numpy")
def _rasterize(points, faces, face_index, barycentric, depth):  # noqa: ANN001, ANN202
    height, width = face_index.shape
    for f in range(faces.shape[0]):
        # Unsigned indices spare the test for negative ones.
        a, b, c = np.uintp(faces[f, 0]), np.uintp(faces[f, 1]), np.uintp(faces[f, 2])
        ax, ay = np.float64(points[a, 0]), np.float64(points[a, 1])
        bx, by = np.float64(points[b, 0]), np.float64(points[b, 1])
        cx, cy = np.float64(points[c, 0]), np.float64(points[c, 1])
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if not area > 1e-12:  # from behind, degenerate, or not a number
            continue
        left, right = min(ax, bx, cx), max(ax, bx, cx)
        top, bottom = min(ay, by, cy), max(ay, by, cy)
        if not (right >= 0.0 and bottom >= 0.0 and left <= width and top <= height):
            continue
        first_column = int(np.ceil(max(left, 0.0) - 0.5))
        last_column = int(np.floor(min(right, float(width)) - 0.5))
        first_row = int(np.ceil(max(top, 0.0) - 0.5))
        last_row = int(np.floor(min(bottom, float(height)) - 0.5))
        if first_column > last_column or first_row > last_row:
            continue  # small faces mostly lie between the pixel centres
        per_area = 1.0 / area
        u_step, v_step = (by - cy) * per_area, (cy - ay) * per_area
        za, zb, zc = points[a, 2], points[b, 2], points[c, 2]
        for row in range(first_row, last_row + 1):
            y, x = row + 0.5, first_column + 0.5
            u = ((bx - x) * (cy - y) - (cx - x) * (by - y)) * per_area - u_step
            v = ((cx - x) * (ay - y) - (ax - x) * (cy - y)) * per_area - v_step
            for column in range(first_column, last_column + 1):
                u += u_step
                v += v_step
                w = 1.0 - u - v
                # A hair of slack: rounding must not leave gaps along shared edges.
                if u < -1e-6 or v < -1e-6 or w < -1e-6:
                    continue
                z = u * za + v * zb + w * zc
                if z < depth[row, column]:
                    depth[row, column] = z
                    face_index[row, column] = f
                    barycentric[row, column, 0] = max(u, 0.0)
                    barycentric[row, column, 1] = max(v, 0.0)
                    barycentric[row, column, 2] = max(w, 0.0)


@njit(cache=True, nogil=True, fastmath=False)
def _interpolate(face_index, barycentric, faces, attributes, image):  # noqa: ANN001, ANN202
    height, width = face_index.shape
    for row in range(height):
        for column in range(width):
            f = face_index[row, column]
            if f < 0:
                continue
            for corner in range(3):
                weight = barycentric[row, column, corner]
                vertex = faces[f, corner]
                for channel in range(attributes.shape[1]):
                    image[row, column, channel] += weight * attributes[vertex, channel]


@njit(cache=True, nogil=True)
def _shade(face_index, barycentric, faces, colors, coordinates, image, uv, mask):  # noqa: ANN001, ANN202
    height, width = face_index.shape
    for row in range(height):
        for column in range(width):
            f = face_index[row, column]
            if f < 0:
                continue
            a, b, c = np.uintp(faces[f, 0]), np.uintp(faces[f, 1]), np.uintp(faces[f, 2])
            s, t, r = barycentric[row, column]
            mask[row, column] = 1
            for channel in range(3):
                color = s * colors[a, channel] + t * colors[b, channel] + r * colors[c, channel]
                image[row, column, channel] = np.uint8(color + np.float32(0.5))
            for axis in range(2):
                uv[row, column, axis] = (
                    s * coordinates[a, axis] + t * coordinates[b, axis] + r * coordinates[c, axis]
                )
