# SPDX-License-Identifier: Apache-2.0
"""Texture rendering and UV rendering by torch, where the mesh is (paper, Sec. 3.1).

Does what ``FaceRenderer`` does, for a batch: of a frame only its vertices and its pose have to come
to the device. For GPUs: on a CPU the compiled software path takes a hundredth of the time.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from styleavatar_core.errors import RenderError
from styleavatar_core.face3d.camera import projection
from styleavatar_core.face3d.model import FaceModel
from styleavatar_core.raster.mesh import LIGHT
from styleavatar_core.raster.render import recesses
from styleavatar_core.raster.tensors import rasterize, shade
from styleavatar_core.types import FaceParameters, FloatArray

# Pixels of the list for each of the image. A mesh whose faces all look at the camera and fill the
# image takes about three: a face's window is twice as large as the face, and eyes lie behind lids.
_LIST_SHARE = 4
_MOST_LIST_SHARE = 32  # a mesh that covers the image so often is torn; memory is not for it
POSE_COUNT = 13  # numbers of a pose: matrix by rows, offset, scale


class TensorFaceRenderer(nn.Module):
    """Draws one face model, on the device it is moved to.

    Args:
        model: The face model.
        albedo: (V, 3) float32 RGB in [0, 1].
        size_px: Side of the square image.
    """

    faces: torch.Tensor
    faces_around: torch.Tensor
    albedo: torch.Tensor
    uv_coordinates: torch.Tensor
    recess: torch.Tensor
    light: torch.Tensor
    face_triangles: torch.Tensor | None

    def __init__(self, model: FaceModel, albedo: FloatArray, size_px: int) -> None:
        super().__init__()
        self.size_px = size_px
        self._list_share = _LIST_SHARE
        recess = np.zeros((len(albedo), 1), np.float32)
        for (start, stop), depth in recesses(model):
            recess[start:stop] = depth
        constants = {
            "faces": model.faces.astype(np.int64),
            "faces_around": _faces_around(model.faces, len(albedo)),
            "albedo": albedo,
            "uv_coordinates": model.uv_coordinates,
            "recess": recess,
            "light": LIGHT,
        }
        for name, array in constants.items():
            self.register_buffer(name, torch.from_numpy(np.array(array)))
        of_face = model.face_triangles()
        self.register_buffer(
            "face_triangles", None if of_face is None else torch.from_numpy(of_face)
        )

    def forward(
        self, vertices: torch.Tensor, pose: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Draws moved faces.

        Args:
            vertices: (B, V, 3) float32, model space.
            pose: (B, POSE_COUNT) float32, from :func:`pose_numbers`.

        Returns:
            Texture (B, S, S, 3) uint8 RGB, UV (B, S, S, 2) float32 in [0, 1] and mask (B, S, S)
            uint8, zero where there is no face; and (2,) int64, the entries that all this needed and
            those that there were: if too few, faces are missing, see :meth:`make_room`.
        """
        matrix, offset, scale = pose[:, :9].reshape(-1, 1, 3, 3), pose[:, None, 9:12], pose[:, 12:]
        x, y, z = vertices.split(1, dim=2)
        points = matrix[..., 0] * x + matrix[..., 1] * y + matrix[..., 2] * z + offset
        colors = self._irradiance(self._normals(points)) * self.albedo
        half = self.size_px / 2
        points = points * half
        depth = points[..., 2:] + self.recess * (scale * half)[:, None]
        points = torch.cat([points[..., :2] + half, depth], dim=2)
        length = self._list_length(len(points))
        covered = rasterize(points, self.faces, self.size_px, self.size_px, length)
        image, uv, mask = shade(covered.face_index, points, self.faces, colors, self.uv_coordinates)
        if self.face_triangles is not None:
            mask = mask * self.face_triangles[covered.face_index.clamp(min=0)]
        room = torch.stack([covered.needed, torch.full_like(covered.needed, length)])
        return image, uv, mask, room

    def make_room(self, needed: int, count: int) -> None:
        """Makes the next batches of ``count`` find as many entries as were needed.

        Raises:
            RenderError: They are more than any face needs.
        """
        share = needed / (count * self.size_px**2)
        if share > _MOST_LIST_SHARE:
            raise RenderError(
                f"the mesh covers the picture {share:.0f} times over; at most {_MOST_LIST_SHARE} "
                "times is drawn: its expression is far from any face's"
            )
        while needed > self._list_length(count):
            self._list_share *= 2

    def _list_length(self, count: int) -> int:
        return self._list_share * count * self.size_px**2

    def _normals(self, points: torch.Tensor) -> torch.Tensor:
        """Computes outward unit normals (B, V, 3); zero for vertices without a face."""
        a, b, c = (points[:, self.faces[:, corner]] for corner in range(3))
        # (c - a) x (b - a): clockwise faces have their outward normal towards the camera.
        of_faces = torch.linalg.cross(c - a, b - a)
        padded = torch.cat([of_faces, of_faces[:, :1] * 0.0], dim=1)
        # Gathered, not scattered: sums come out the same each time.
        summed = padded[:, self.faces_around].sum(dim=2)
        length = summed.square().sum(dim=2, keepdim=True).sqrt()
        return (summed / length).masked_fill(length <= 1e-12, 0.0)

    def _irradiance(self, normals: torch.Tensor) -> torch.Tensor:
        """Evaluates the fixed light at normals (B, V, 3): (B, V, 1), not negative."""
        x, y, z = normals.split(1, dim=2)
        one = torch.ones_like(x)
        harmonics = (one, x, y, z, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y)
        return (torch.cat(harmonics, dim=2) * self.light).sum(dim=2, keepdim=True).clamp(min=0.0)


def pose_numbers(params: FaceParameters) -> FloatArray:
    """Returns what a device needs of a pose: (POSE_COUNT,) float32."""
    matrix, offset = projection(params)
    return np.concatenate([matrix.ravel(), offset, [params.scale]]).astype(np.float32)


def _faces_around(faces: np.ndarray, vertex_count: int) -> np.ndarray:
    """Returns the faces of each vertex, (V, K) int64; F where it has no more."""
    vertices = faces.ravel()
    order = np.argsort(vertices, kind="stable")
    counts = np.bincount(vertices, minlength=vertex_count)
    starts = np.cumsum(counts) - counts
    around = np.full((vertex_count, max(1, counts.max())), len(faces), np.int64)
    column = np.arange(len(order)) - starts[vertices[order]]
    around[vertices[order], column] = order // 3
    return around
