# SPDX-License-Identifier: Apache-2.0
"""The linear face model (paper, Sec. 3.1): coefficients to vertices and vertex colours."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from styleavatar_core.errors import AssetError
from styleavatar_core.face3d.camera import eye_matrix
from styleavatar_core.types import FloatArray

IntArray = npt.NDArray[np.int32]

_FORMAT = "styleavatar-face-model-1"
VERTEX_ARRAYS = (
    "mean_shape",
    "identity_basis",
    "expression_basis",
    "mean_texture",
    "texture_basis",
    "uv_coordinates",
)
_ARRAYS = (*VERTEX_ARRAYS[:5], "faces", "uv_coordinates", "landmark_indices")
_IS_FACE = "is_face"  # not every model says it


@dataclass(frozen=True, eq=False)
class FaceModel:
    """A morphable model: mean, directions and topology. Axes and units: ``docs/conventions.md``.

    Attributes:
        model_id: Name that face parameters and bundles carry.
        mean_shape: (V, 3) float32, decimetres.
        identity_basis: (V, 3, I) float32, per standard deviation.
        expression_basis: (V, 3, E) float32, per unit coefficient.
        expression_names: E names.
        mean_texture: (V, 3) float32 RGB in [0, 1].
        texture_basis: (V, 3, T) float32.
        faces: (F, 3) int32, clockwise on the screen (y down) when they face the camera.
        uv_coordinates: (V, 2) float32 in [0, 1], (0, 0) top left.
        landmark_indices: (478,) int32. Vertex of each MediaPipe landmark; irises are 468-477.
        eye_vertices: Vertex ranges (start, stop) of the subject's left and right eyeball. An
            eyeball turns about the mean of its vertices.
        mouth_vertices: Vertex range of the mouth's inside, (0, 0) where a model has none.
        expression_max: Largest coefficient, inf where there is no limit; the least is 0.
        is_face: (V,) uint8, 1 where a vertex is one of the face and not of scalp or neck, which are
            drawn, but not in the face mask; None where all that is drawn is in it.
        digest: sha256 of what its file holds; empty when it was made in memory.
    """

    model_id: str
    mean_shape: FloatArray
    identity_basis: FloatArray
    expression_basis: FloatArray
    expression_names: tuple[str, ...]
    mean_texture: FloatArray
    texture_basis: FloatArray
    faces: IntArray
    uv_coordinates: FloatArray
    landmark_indices: IntArray
    eye_vertices: tuple[tuple[int, int], tuple[int, int]]
    mouth_vertices: tuple[int, int] = (0, 0)
    expression_max: float = 1.0
    is_face: npt.NDArray[np.uint8] | None = None
    digest: str = ""

    def neutral(self, identity: FloatArray) -> FloatArray:
        """Returns a person's face at rest, (V, 3) float32, for (I,) identity coefficients."""
        return self.mean_shape + combine(self.identity_basis, identity)

    def vertices(
        self, neutral: FloatArray, expression: FloatArray, eye_rotation: FloatArray
    ) -> FloatArray:
        """Moves a neutral face.

        Args:
            neutral: (V, 3) float32, from :meth:`neutral`.
            expression: (E,) float32 coefficients.
            eye_rotation: (2, 2) float32 radians; rows left, right eye; columns pitch, yaw.

        Returns:
            (V, 3) float32, model space.
        """
        moved = neutral + combine(self.expression_basis, expression)
        for (start, stop), (pitch, yaw) in zip(self.eye_vertices, eye_rotation, strict=True):
            center = neutral[start:stop].mean(axis=0)
            rotation = eye_matrix(float(pitch), float(yaw)).astype(np.float32)
            moved[start:stop] = (neutral[start:stop] - center) @ rotation.T + center
        return moved

    def albedo(self, texture: FloatArray) -> FloatArray:
        """Returns vertex colours, (V, 3) float32 RGB in [0, 1], for (T,) texture coefficients."""
        colors = self.mean_texture + combine(self.texture_basis, texture)
        return np.clip(colors, 0.0, 1.0)

    def face_triangles(self) -> npt.NDArray[np.uint8] | None:
        """Returns (F,) uint8, 1 where a triangle touches the face; None where all count."""
        return None if self.is_face is None else self.is_face[self.faces].max(axis=1)

    def require_sound(self) -> None:
        """Makes sure that its arrays fit together: the rasterizers look up without asking.

        Raises:
            ValueError: They do not; it says which.
        """
        count, shapes = len(self.mean_shape), {name: getattr(self, name).shape for name in _ARRAYS}
        wanted = {
            "mean_shape": (count, 3),
            "mean_texture": (count, 3),
            "identity_basis": (count, 3, shapes["identity_basis"][-1]),
            "expression_basis": (count, 3, len(self.expression_names)),
            "texture_basis": (count, 3, shapes["texture_basis"][-1]),
            "uv_coordinates": (count, 2),
            "faces": (len(self.faces), 3),
            "landmark_indices": (len(self.landmark_indices),),
        }
        for name, shape in wanted.items():
            if shapes[name] != shape:
                raise ValueError(f"{name} is of the shape {shapes[name]}, not {shape}")
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"{name} holds what is no number")
        if (marks := self.is_face) is not None and (
            marks.shape != (count,) or marks.dtype != np.uint8 or marks.max() > 1
        ):
            raise ValueError(f"is_face is not {count} times 0 or 1 in uint8")
        for name in ("faces", "landmark_indices"):
            indices = getattr(self, name)
            if indices.dtype.kind != "i" or not (indices.min() >= 0 and indices.max() < count):
                raise ValueError(f"{name} names vertices that are not there")
        for start, stop in (*self.eye_vertices, self.mouth_vertices):
            if not 0 <= start <= stop <= count:
                raise ValueError(f"the vertices from {start} to {stop} are not there")
        if any(start == stop for start, stop in self.eye_vertices):
            raise ValueError("an eye has no vertices")

    def save(self, path: Path) -> None:
        """Writes the model as one safetensors file; the directions are kept as float16."""
        tensors, metadata = self._stored()
        save_file(tensors, path, metadata=metadata)

    def without_mouth(self, model_id: str) -> FaceModel:
        """Returns the model as it is but for the mouth's inside, whose vertices are the last."""
        start, _ = self.mouth_vertices
        arrays = {name: getattr(self, name)[:start] for name in VERTEX_ARRAYS}
        faces = self.faces[(self.faces < start).all(axis=1)]
        model = replace(self, model_id=model_id, faces=faces, mouth_vertices=(0, 0), **arrays)
        return replace(model, digest=_digest(*model._stored()))

    def _stored(self) -> tuple[dict[str, npt.NDArray[np.generic]], dict[str, str]]:
        """Returns the arrays and the metadata of its file."""
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _ARRAYS}
        tensors = {
            name: array.astype(np.float16) if name.endswith("_basis") else array
            for name, array in arrays.items()
        }
        if self.is_face is not None:
            tensors[_IS_FACE] = self.is_face
        metadata = {
            "format": _FORMAT,
            "model_id": self.model_id,
            "expression_names": json.dumps(self.expression_names),
            "eye_vertices": json.dumps(self.eye_vertices),
        }
        if self.mouth_vertices != (0, 0):
            metadata["mouth_vertices"] = json.dumps(self.mouth_vertices)
        if self.expression_max != 1.0:
            metadata["expression_max"] = str(self.expression_max)
        return tensors, metadata


def combine(basis: FloatArray, coefficients: FloatArray) -> FloatArray:
    """Returns the (V, 3) combination of (V, 3, N) directions.

    By einsum and not by BLAS, whose threads cost more than they bring at this size, and very much
    more where several streams share a processor.
    """
    return np.einsum("vcn,n->vc", basis, np.asarray(coefficients, basis.dtype))


def load_face_model(path: Path) -> FaceModel:
    """Reads a model that :meth:`FaceModel.save` wrote.

    Raises:
        AssetError: The file is missing, damaged or of another format.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise AssetError(f"{path.name} is not a face model of format {_FORMAT}.")
            stored = file.keys()
            arrays = {name: file.get_tensor(name) for name in _names(stored)}
    except (OSError, SafetensorError) as error:
        raise AssetError(f"The face model {path.name} cannot be read: {error}") from error
    floats = {n: a.astype(np.float32) if a.dtype.kind == "f" else a for n, a in arrays.items()}
    try:
        left, right = json.loads(metadata["eye_vertices"])
        start, stop = json.loads(metadata.get("mouth_vertices", "[0, 0]"))
        model = FaceModel(
            model_id=metadata["model_id"],
            expression_names=tuple(json.loads(metadata["expression_names"])),
            eye_vertices=((left[0], left[1]), (right[0], right[1])),
            mouth_vertices=(start, stop),
            expression_max=float(metadata.get("expression_max", 1.0)),
            digest=_digest(arrays, metadata),
            **floats,
        )
        model.require_sound()
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise AssetError(f"The face model {path.name} cannot be used: {error}.") from error
    return model


def _names(stored: Collection[str]) -> list[str]:
    """Returns the names of a file's arrays, in a certain order."""
    return [*_ARRAYS, *([_IS_FACE] if _IS_FACE in stored else [])]


def _digest(arrays: dict[str, npt.NDArray[np.generic]], metadata: dict[str, str]) -> str:
    """Returns the sha256 of contents; files of equal contents may differ in their order."""
    total = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in _names(arrays):
        total.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode())
        total.update(np.ascontiguousarray(arrays[name]).data)
    return total.hexdigest()
