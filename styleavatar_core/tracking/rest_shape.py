# SPDX-License-Identifier: Apache-2.0
"""A person's landmarks at rest: the part of a face model that fitting needs, and no more of it.

A model of tens of thousands of vertices costs a fit no more than a small one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from styleavatar_core.face3d import landmark_groups as groups
from styleavatar_core.face3d.model import FaceModel
from styleavatar_core.types import FloatArray

_FACE = slice(0, groups.FACE_LANDMARK_COUNT)
_IRISES = (groups.LEFT_IRIS, groups.RIGHT_IRIS)


@dataclass(frozen=True, slots=True)
class RestShape:
    """One person, expressionless, in model space (decimetres, float64).

    Attributes:
        points: (468, 3) face landmarks.
        normals: (468, 3) outward unit normals there.
        eye_centers: (2, 3) centres of the left and the right eyeball.
        iris_offsets: (2, 5, 3) iris points relative to them, looking ahead.
    """

    points: FloatArray
    normals: FloatArray
    eye_centers: FloatArray
    iris_offsets: FloatArray


class LandmarkModel:
    """The vertices around a face model's landmarks, with their directions.

    Attributes:
        mean: (468, 3) float64 landmarks of the mean face.
        identity_directions: (468, 3, I) float64.
        expression_directions: (468, 3, E) float64.
    """

    def __init__(self, model: FaceModel) -> None:
        landmarks = model.landmark_indices.astype(np.int64)
        # Normals at a landmark need the faces around it, and those their corners.
        around = model.faces[np.isin(model.faces, landmarks[_FACE]).any(axis=1)]
        vertices = np.unique(np.concatenate([landmarks, around.ravel()]))
        self._faces = np.searchsorted(vertices, around)
        self._places = np.searchsorted(vertices, landmarks)
        self._mean = model.mean_shape[vertices].astype(np.float64)
        self._basis = model.identity_basis[vertices].astype(np.float64)
        eyes = [slice(*span) for span in model.eye_vertices]
        self._eye_means = np.stack([model.mean_shape[e].mean(axis=0, dtype=float) for e in eyes])
        self._eye_basis = np.stack(
            [model.identity_basis[e].mean(axis=0, dtype=float) for e in eyes]
        )
        face = self._places[_FACE]
        self.mean = self._mean[face]
        self.identity_directions = np.ascontiguousarray(self._basis[face])
        self.expression_directions = model.expression_basis[landmarks[_FACE]].astype(np.float64)

    def rest(self, identity: FloatArray) -> RestShape:
        """Returns the shape of (I,) identity coefficients."""
        coefficients = np.asarray(identity, np.float64)
        shape = self._mean + np.einsum("vcn,n->vc", self._basis, coefficients)
        centers = self._eye_means + np.einsum("vcn,n->vc", self._eye_basis, coefficients)
        points = shape[self._places]
        return RestShape(
            points=points[_FACE].copy(),
            normals=self._normals(shape),
            eye_centers=centers,
            iris_offsets=np.stack(
                [points[list(iris)] - c for iris, c in zip(_IRISES, centers, strict=True)]
            ),
        )

    def _normals(self, shape: FloatArray) -> FloatArray:
        a, b, c = (shape[self._faces[:, corner]] for corner in range(3))
        face_normals = np.cross(c - a, b - a)
        normals = np.zeros_like(shape)
        for corner in range(3):
            np.add.at(normals, self._faces[:, corner], face_normals)
        normals = normals[self._places[_FACE]]
        return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
