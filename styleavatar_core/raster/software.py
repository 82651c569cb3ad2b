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

SLACK = 1e-6  # of a weight: rounding must not leave gaps along shared edges


@dataclass(frozen=True, slots=True)
class Fragments:
    """What covers each pixel.

    Attributes:
        face_index: (H, W) int32. Index of the nearest face, -1 where none covers the pixel centre.
        points: (V, 3) float32. What was drawn; says where in its face a pixel lies.
    """

    face_index: IntArray
    points: FloatArray


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
    depth = np.full((height, width), np.inf, np.float32)
    corners = np.ascontiguousarray(points, np.float32)
    _rasterize(corners, faces, face_index, depth)
    return Fragments(face_index, corners)


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
    _interpolate(fragments.face_index, fragments.points, faces, values, image)
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
    drawn = fragments.face_index, fragments.points, faces
    _shade(*drawn, np.ascontiguousarray(colors, np.float32), uv_coordinates, image, uv, mask)
    return image, uv, mask


def warm_up() -> None:
    """Compiles the kernels (a few seconds at most, once per machine)."""
    points = np.array([[0, 0, 0], [4, 0, 0], [4, 4, 0]], np.float32)
    faces = np.array([[0, 1, 2]], np.int32)
    fragments = rasterize(points, faces, 4, 4)
    shade(fragments, faces, points, points[:, :2].copy())
    interpolate(fragments, faces, points)


@njit(cache=True, nogil=True, error_model="numpy")
def _rasterize(points, faces, face_index, depth):  # noqa: ANN001, ANN202
    height, width = face_index.shape
    for f in range(faces.shape[0]):
        # Unsigned indices spare the test for negative ones.
        a, b, c = np.uintp(faces[f, 0]), np.uintp(faces[f, 1]), np.uintp(faces[f, 2])
        ax, ay = np.float64(points[a, 0]), np.float64(points[a, 1])
        bx, by = np.float64(points[b, 0]), np.float64(points[b, 1])
        cx, cy = np.float64(points[c, 0]), np.float64(points[c, 1])
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        left = np.ceil(max(min(ax, bx, cx), 0.0) - 0.5)
        right = np.floor(min(max(ax, bx, cx), float(width)) - 0.5)
        top = np.ceil(max(min(ay, by, cy), 0.0) - 0.5)
        bottom = np.floor(min(max(ay, by, cy), float(height)) - 0.5)
        # From behind, degenerate or not a number; or between pixel centres, as many small faces.
        if not ((area > 1e-12) & (left <= right) & (top <= bottom)):
            continue
        per_area = 1.0 / area
        za, zb, zc = points[a, 2], points[b, 2], points[c, 2]
        x, y = left + 0.5 - cx, top + 0.5 - cy
        # Weight of a, weight of b, depth: at the first pixel, one to the right, one further down.
        u_right, u_down = (by - cy) * per_area, (cx - bx) * per_area
        v_right, v_down = (cy - ay) * per_area, (ax - cx) * per_area
        z_right = u_right * (za - zc) + v_right * (zb - zc)
        z_down = u_down * (za - zc) + v_down * (zb - zc)
        first = u_right * x + u_down * y, v_right * x + v_down * y, zc + z_right * x + z_down * y
        steps = (u_right, v_right, z_right), (u_down, v_down, z_down)
        window = int(left), int(right), int(top), int(bottom)
        if (right - left <= 1.0) & (bottom - top <= 1.0):
            _fill_tiny(f, first, steps, window, face_index, depth)
        else:
            _fill_rows(f, first, steps, window, face_index, depth)


@njit(cache=True, nogil=True, error_model="numpy")
def _fill_tiny(f, first, steps, window, face_index, depth):  # noqa: ANN001, ANN202
    """Draws a face within two by two pixels, without a branch that nothing could predict."""
    left, right, top, bottom = window
    for n in range(4):
        x, y = min(n & 1, right - left), min(n >> 1, bottom - top)
        row, column = np.uintp(top + y), np.uintp(left + x)
        u = first[0] + x * steps[0][0] + y * steps[1][0]
        v = first[1] + x * steps[0][1] + y * steps[1][1]
        here = np.float32(first[2] + x * steps[0][2] + y * steps[1][2])
        before, was = depth[row, column], face_index[row, column]
        is_nearest = (min(u, v, 1.0 - u - v) >= -SLACK) & (here < before)
        depth[row, column] = here if is_nearest else before
        face_index[row, column] = f if is_nearest else was


@njit(cache=True, nogil=True, error_model="numpy")
def _fill_rows(f, first, steps, window, face_index, depth):  # noqa: ANN001, ANN202
    """Draws a face row by row, each from where all weights are positive to where one no more is."""
    left, right, top, bottom = window
    u_step, v_step, z_step = steps[0]
    for row in range(top, bottom + 1):
        y = row - top
        u, v = first[0] + y * steps[1][0], first[1] + y * steps[1][1]
        start, stop = 0.0, float(right - left)
        for weight, step in ((u, u_step), (v, v_step), (1.0 - u - v, -u_step - v_step)):
            if step > 0.0:
                start = max(start, -(weight + SLACK) / step)
            elif step < 0.0:
                stop = min(stop, -(weight + SLACK) / step)
            elif weight < -SLACK:
                stop = -1.0
        if not start <= stop:
            continue
        z = first[2] + y * steps[1][2]
        for n in range(int(np.ceil(start)), int(np.floor(stop)) + 1):
            here, column = np.float32(z + n * z_step), np.uintp(left + n)
            if here < depth[row, column]:
                depth[row, column] = here
                face_index[row, column] = f


@njit(cache=True, nogil=True, error_model="numpy")
def _weights(points, a, b, c, row, column):  # noqa: ANN001, ANN202
    """Barycentric weights of a pixel centre in a face that covers it, each in [0, 1], sum 1."""
    x, y = np.float32(column + 0.5), np.float32(row + 0.5)
    ax, ay = points[a, 0] - x, points[a, 1] - y
    bx, by = points[b, 0] - x, points[b, 1] - y
    cx, cy = points[c, 0] - x, points[c, 1] - y
    none = np.float32(0.0)
    s, t, r = (
        max(bx * cy - cx * by, none),
        max(cx * ay - ax * cy, none),
        max(ax * by - bx * ay, none),
    )
    if not s + t + r > none:  # a face thinner than rounding
        return np.float32(1.0), none, none
    share = np.float32(1.0) / (s + t + r)
    return s * share, t * share, r * share


@njit(cache=True, nogil=True, error_model="numpy")
def _interpolate(face_index, points, faces, attributes, image):  # noqa: ANN001, ANN202
    height, width = face_index.shape
    for row in range(height):
        for column in range(width):
            f = face_index[row, column]
            if f < 0:
                continue
            a, b, c = np.uintp(faces[f, 0]), np.uintp(faces[f, 1]), np.uintp(faces[f, 2])
            s, t, r = _weights(points, a, b, c, row, column)
            for n in range(attributes.shape[1]):
                value = s * attributes[a, n] + t * attributes[b, n] + r * attributes[c, n]
                image[row, column, n] = value


@njit(cache=True, nogil=True, error_model="numpy")
def _shade(face_index, points, faces, colors, coordinates, image, uv, mask):  # noqa: ANN001, ANN202
    height, width = face_index.shape
    # What a pixel needs of a vertex lies together: place, levels of the colour, coordinates.
    corners = np.empty((len(points), 8), np.float32)
    for v in range(len(points)):
        corners[v, 0], corners[v, 1] = points[v, 0], points[v, 1]
        for n in range(3):
            color = min(max(colors[v, n], np.float32(0.0)), np.float32(1.0))
            corners[v, 2 + n] = color * np.float32(255.0)
        corners[v, 5], corners[v, 6] = coordinates[v, 0], coordinates[v, 1]
    for row in range(height):
        for column in range(width):
            f = face_index[row, column]
            if f < 0:
                continue
            a, b, c = np.uintp(faces[f, 0]), np.uintp(faces[f, 1]), np.uintp(faces[f, 2])
            s, t, r = _weights(corners, a, b, c, row, column)
            mask[row, column] = 1
            for n in range(3):
                level = s * corners[a, 2 + n] + t * corners[b, 2 + n] + r * corners[c, 2 + n]
                image[row, column, n] = np.uint8(np.int32(level + np.float32(0.5)))
            for n in range(2):
                place = s * corners[a, 5 + n] + t * corners[b, 5 + n] + r * corners[c, 5 + n]
                uv[row, column, n] = place
