# SPDX-License-Identifier: Apache-2.0
"""Face parameters to network inputs: texture rendering, UV rendering, face mask (paper, Sec. 3.1).

The one renderer of data preparation and of live driving: in use a network sees nothing that it
did not see in training.
"""

from __future__ import annotations

from dataclasses import dataclass

from styleavatar_core.errors import InvalidInputError
from styleavatar_core.face3d.model import FaceModel
from styleavatar_core.raster.mesh import MovingMesh
from styleavatar_core.raster.opengl import Rasterize
from styleavatar_core.raster.render import FaceRenderer
from styleavatar_core.raster.software import warm_up
from styleavatar_core.types import ByteArray, FaceIdentity, FaceParameters, FloatArray


@dataclass(frozen=True, slots=True)
class Conditioning:
    """What the networks see of a frame, as a square of S pixels, aligned with it to the pixel.

    Attributes:
        texture_rendering: (S, S, 3) uint8 RGB, black where there is no face.
        uv_rendering: (S, S, 2) float32 in [0, 1], zero where there is no face.
        face_mask: (S, S) uint8, 1 on the head (eyeballs and the mouth's inside included), 0
            elsewhere.
    """

    texture_rendering: ByteArray
    uv_rendering: FloatArray
    face_mask: ByteArray


class ConditioningRenderer:
    """Renders one person's face.

    Args:
        model: The face model.
        identity: Who is rendered.
        size_px: Side of the square, pixels.
        rasterize: Draws the triangles; what is best on this machine if None.

    Raises:
        InvalidInputError: The identity belongs to another face model, or to another version of it.
    """

    def __init__(
        self,
        model: FaceModel,
        identity: FaceIdentity,
        size_px: int,
        rasterize: Rasterize | None = None,
    ) -> None:
        _require_model(model, identity.model_id, "identity")
        _require_count("identity", len(identity.identity), model.identity_basis.shape[-1])
        _require_count("texture", len(identity.texture), model.texture_basis.shape[-1])
        self._model = model
        self._mesh = MovingMesh(model, model.neutral(identity.identity))
        self._renderer = FaceRenderer(model, model.albedo(identity.texture), size_px, rasterize)

    def warm_up(self) -> None:
        """Compiles the rasterizer, so that the first frame takes no longer than the others."""
        warm_up()

    def render(self, parameters: FaceParameters) -> Conditioning:
        """Renders one frame.

        Args:
            parameters: In the coordinates of the square that is rendered
                (:func:`styleavatar_core.face3d.camera.parameters_in_crop`).
        """
        rendering = self._renderer.render(self.vertices(parameters), parameters)
        return Conditioning(rendering.texture, rendering.uv, rendering.mask)

    def vertices(self, parameters: FaceParameters) -> FloatArray:
        """Moves the mesh only, for a device that draws it: (V, 3) float32, model space."""
        _require_model(self._model, parameters.model_id, "parameters")
        return self._mesh.vertices(parameters.expression, parameters.eye_rotation)


def _require_model(model: FaceModel, model_id: str, what: str) -> None:
    if model_id != model.model_id:
        raise InvalidInputError(
            f"The {what} belong to face model '{model_id}', but '{model.model_id}' is in use."
        )


def _require_count(what: str, count: int, wanted: int) -> None:
    if count != wanted:
        raise InvalidInputError(
            f"There are {count} {what} coefficients, but the face model has {wanted}: they come "
            "from another version of it. Train the avatar again."
        )
