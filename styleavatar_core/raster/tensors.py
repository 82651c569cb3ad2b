# SPDX-License-Identifier: Apache-2.0
"""Rasterizing by torch, on whatever device the mesh is: the software path's pixels, none by a loop.

Every face's window of pixel centres is laid into one list of fixed length; each entry is tried at
once, and the nearest face of a pixel is the least of the numbers that hold depth and face. No shape
and no branch depends on the mesh, so that a CUDA graph can hold all of it. A list that is too short
is told, not noticed: see :class:`Covered`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from styleavatar_core.raster.software import SLACK

_NOTHING = torch.iinfo(torch.int64).max  # the number of a pixel that no face covers
_FACE_BITS = 32


@dataclass(frozen=True, slots=True)
class Covered:
    """What covers each pixel of a batch.

    Attributes:
        face_index: (B, H, W) int64. Index of the nearest face, -1 where none covers the centre.
        needed: () int64. How long the list would have had to be; beyond its length, faces are
            missing, and the batch must be drawn again with a longer one.
    """

    face_index: torch.Tensor
    needed: torch.Tensor


def rasterize(
    points: torch.Tensor, faces: torch.Tensor, width: int, height: int, length: int
) -> Covered:
    """Finds the nearest face at every pixel centre; faces seen from behind are left out.

    Args:
        points: (B, V, 3) float32: x, y in pixels (pixel (i, j) has its centre at
            (i + 0.5, j + 0.5)), z growing away from the camera.
        faces: (F, 3) int64, clockwise on the screen (y down) where they face the camera.
        width: Image width, pixels.
        height: Image height, pixels.
        length: Of the list: pixels of all faces' windows together.
    """
    windows, planes = _set_up(points, faces, width, height)
    left, top, wide, count = windows
    ends = count.cumsum(0)
    place = torch.arange(length, device=points.device)
    owner = torch.searchsorted(ends, place, right=True).clamp(max=len(ends) - 1)
    place_in_window = place - (ends - count)[owner]
    column, row = place_in_window % wide[owner], place_in_window // wide[owner]
    u, v, z = (plane[0] + row * plane[2] + column * plane[1] for plane in planes[:, :, owner])
    depth = z.float() + 0.0  # one zero only
    is_drawn = (torch.minimum(torch.minimum(u, v), 1.0 - u - v) >= -SLACK) & (depth < torch.inf)
    is_drawn &= place < ends[-1]
    face = owner % len(faces)
    number = ((_ordered(depth) << _FACE_BITS) | face).masked_fill(~is_drawn, _NOTHING)
    pixel = (owner // len(faces) * height + top[owner] + row) * width + left[owner] + column
    # What is not drawn changes nothing; spread out, it does not wait for its like either.
    total = len(points) * height * width
    pixel = torch.where(is_drawn, pixel, place % total)
    numbers = torch.full((total,), _NOTHING, device=points.device)
    numbers.scatter_reduce_(0, pixel, number, "amin")
    index = (numbers & (2**_FACE_BITS - 1)).masked_fill(numbers == _NOTHING, -1)
    return Covered(index.reshape(len(points), height, width), ends[-1])


def _ordered(depth: torch.Tensor) -> torch.Tensor:
    """Returns whole numbers (int64, 32 bits) in the order of float32 depths."""
    bits = depth.view(torch.int32)
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()


def _set_up(
    points: torch.Tensor, faces: torch.Tensor, width: int, height: int
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Returns each face's window and planes, in the software path's arithmetic.

    Returns:
        First column, first row, width and count of the pixels of each window, (B * F) int64 each,
        count 0 for what is not seen; and (3, 3, B * F) float64: weight of the first corner, of the
        second, and depth, each at the window's first pixel, its step to the right and downwards.
    """
    a, b, c = (points[:, faces[:, corner]].flatten(0, 1) for corner in range(3))
    (ax, ay), (bx, by), (cx, cy) = (corner[:, :2].double().unbind(1) for corner in (a, b, c))
    area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
    sides = ((ax, bx, cx, float(width)), (ay, by, cy, float(height)))
    (left, right), (top, bottom) = (
        (
            (torch.minimum(torch.minimum(p, q), r).clamp(min=0.0) - 0.5).ceil(),
            (torch.maximum(torch.maximum(p, q), r).clamp(max=side) - 0.5).floor(),
        )
        for p, q, r, side in sides
    )
    # From behind, degenerate or not a number; or between pixel centres, as many small faces.
    is_seen = (area > 1e-12) & (left <= right) & (top <= bottom)
    per_area = 1.0 / area
    x, y = left + 0.5 - cx, top + 0.5 - cy
    u_right, u_down = (by - cy) * per_area, (cx - bx) * per_area
    v_right, v_down = (cy - ay) * per_area, (ax - cx) * per_area
    to_a, to_b = (corner[:, 2] - c[:, 2] for corner in (a, b))
    z_right, z_down = u_right * to_a + v_right * to_b, u_down * to_a + v_down * to_b
    planes = [
        [u_right * x + u_down * y, u_right, u_down],
        [v_right * x + v_down * y, v_right, v_down],
        [c[:, 2] + z_right * x + z_down * y, z_right, z_down],
    ]
    first, wide, high = (left, top), right - left + 1, bottom - top + 1
    left, top, wide, high = (
        part.masked_fill(~is_seen, other).long()
        for part, other in zip((*first, wide, high), (0.0, 0.0, 1.0, 0.0), strict=True)
    )
    stacked = torch.stack([torch.stack(plane) for plane in planes])
    return (left, top, wide, wide * high), stacked


def shade(
    face_index: torch.Tensor,
    points: torch.Tensor,
    faces: torch.Tensor,
    colors: torch.Tensor,
    uv_coordinates: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draws what covers the pixels.

    Args:
        face_index: (B, H, W) int64, from :func:`rasterize`.
        points: (B, V, 3) float32, what was drawn.
        faces: (F, 3) int64.
        colors: (B, V, 3) float32 RGB; what is beyond [0, 1] is cut off.
        uv_coordinates: (V, 2) float32.

    Returns:
        (B, H, W, 3) uint8 RGB, (B, H, W, 2) float32 UV and (B, H, W) uint8 mask, zero where nothing
        covers the pixel.
    """
    count, height, width = face_index.shape
    levels = colors.clamp(0.0, 1.0) * 255.0
    coordinates = uv_coordinates.expand(count, -1, -1)
    values = torch.cat([points[..., :2], levels, coordinates], dim=2).flatten(0, 1)
    sample = torch.arange(count, device=points.device)[:, None, None, None]
    corners = faces[face_index.clamp(min=0)] + sample * points.shape[1]  # (B, H, W, 3)
    a, b, c = (values[corners[..., corner]] for corner in range(3))
    s, t, r = (weight[..., None] for weight in _weights(a, b, c, height, width))
    mixed = s * a[..., 2:] + t * b[..., 2:] + r * c[..., 2:]
    is_covered = face_index >= 0
    mixed = mixed.masked_fill(~is_covered[..., None], 0.0)
    image = (mixed[..., :3] + 0.5).to(torch.int32).to(torch.uint8)
    return image, mixed[..., 3:].contiguous(), is_covered.to(torch.uint8)


def _weights(
    a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, height: int, width: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Barycentric weights (B, H, W) of pixel centres in faces that cover them, sum 1."""
    x = torch.arange(width, device=a.device) + 0.5
    y = (torch.arange(height, device=a.device) + 0.5)[:, None]
    (ax, ay), (bx, by), (cx, cy) = ((p[..., 0] - x, p[..., 1] - y) for p in (a, b, c))
    s = (bx * cy - cx * by).clamp(min=0.0)
    t = (cx * ay - ax * cy).clamp(min=0.0)
    r = (ax * by - bx * ay).clamp(min=0.0)
    total = s + t + r
    is_thin = ~(total > 0.0)  # thinner than rounding
    share = 1.0 / total
    first, none = torch.ones_like(s), torch.zeros_like(s)
    return (
        torch.where(is_thin, first, s * share),
        torch.where(is_thin, none, t * share),
        torch.where(is_thin, none, r * share),
    )
