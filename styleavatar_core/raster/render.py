# SPDX-License-Identifier: Apache-2.0
"""Texture rendering and UV rendering of a posed face (paper, Sec. 3.1).

The texture rendering uses one fixed light, "in order to accentuate facial expression changes".
"""

from __future__ import annotations

from dataclasses import dataclass

from styleavatar_core.face3d.camera import projection
from styleavatar_core.face3d.model import FaceModel
from styleavatar_core.raster.mesh import light, place, vertex_normals
from styleavatar_core.raster.opengl import Rasterize, choose_rasterizer
from styleavatar_core.raster.software import shade
from styleavatar_core.types import ByteArray, FaceParameters, FloatArray

# Eyeballs and the mouth's inside are drawn this much (decimetres) behind where they are, so that
# closed lids and lips hide them even where the landmarks' depth is a guess. Their place in the
# image does not change. The mouth's is more than a face is deep: no pout lets it come through.
_EYEBALL_RECESS = 0.1
_MOUTH_RECESS = 1.0


def recesses(model: FaceModel) -> list[tuple[tuple[int, int], float]]:
    """Returns what is drawn behind its place: first and last-but-one vertex, and how much, dm."""
    recessed = [(span, _EYEBALL_RECESS) for span in model.eye_vertices]
    return [*recessed, (model.mouth_vertices, _MOUTH_RECESS)]


@dataclass(frozen=True, slots=True)
class FaceRendering:
    """A face drawn into a square.

    Attributes:
        texture: (S, S, 3) uint8 RGB, black where there is no face.
        uv: (S, S, 2) float32 in [0, 1], zero where there is no face.
        mask: (S, S) uint8, 1 where there is a face, an eyeball or the mouth's inside; 0 on what is
            drawn but no face, see ``FaceModel.is_face``.
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
        rasterize: Draws the triangles; what is best on this machine if None.
    """

    def __init__(
        self,
        model: FaceModel,
        albedo: FloatArray,
        size_px: int,
        rasterize: Rasterize | None = None,
    ) -> None:
        self._model = model
        self._albedo = albedo
        self._size_px = size_px
        self._recessed = recesses(model)
        self._face_triangles = model.face_triangles()
        self._rasterize = rasterize or choose_rasterizer()

    def render(self, vertices: FloatArray, params: FaceParameters) -> FaceRendering:
        """Draws a moved face.

        Args:
            vertices: (V, 3) float32, model space.
            params: Pose in the coordinates of the square.
        """
        model, size = self._model, self._size_px
        points, pixels = place(vertices, *projection(params), size)
        colors = light(self._albedo, vertex_normals(model.faces, points))
        for (start, stop), recess in self._recessed:
            pixels[start:stop, 2] += recess * params.scale * size / 2
        fragments = self._rasterize(pixels, model.faces, size, size)
        texture, uv, mask = shade(fragments, model.faces, colors, model.uv_coordinates)
        if self._face_triangles is not None:
            mask &= self._face_triangles[fragments.face_index]
        return FaceRendering(texture, uv, mask)
