# SPDX-License-Identifier: Apache-2.0
"""What a head does and the face model does not: depth, a nose that stays, cheeks that stretch.

The model is learned from a detector's landmarks. The sample clip should be like a person.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from styleavatar_core.face3d.landmark_groups import (
    FACE_LANDMARK_COUNT,
    FACE_OVAL,
    LEFT_EYE_CORNERS,
    LIDS,
    LIPS,
    NOSE,
    RIGHT_EYE_CORNERS,
)
from styleavatar_core.face3d.model import FaceModel
from styleavatar_core.types import FloatArray

IntArray = npt.NDArray[np.int64]

# From the ears' front to the tip of the nose the model has 97 mm at 140 mm of width, as flat as its
# detector; people have about 115.
_DEPTH_SHARE = 1.2
# Bone and cartilage stay while the mouth smiles; so far from the nose skin gives way, decimetres.
_NOSE_REACH_DM = 0.2
_BELOW_EYES_DM = 0.12  # where cheeks begin
_LOWER_LIP = 17


class LifelikeSkin:
    """Corrects the motion and the depth of a face model's mesh.

    Args:
        model: The face model.
    """

    def __init__(self, model: FaceModel) -> None:
        self._landmarks = model.landmark_indices[:FACE_LANDMARK_COUNT].astype(np.int64)
        mean = model.mean_shape.astype(np.float64)
        nose = mean[self._landmarks[list(NOSE)]]
        away = np.linalg.norm(mean[:, None] - nose, axis=2).min(axis=1)
        share = np.minimum(away / _NOSE_REACH_DM, 1.0)
        self._give = (share**2 * (3 - 2 * share))[:, None]
        self._cheeks, self._edges, self._stretch = self._harmonic(model)

    def moved(self, displacement: FloatArray) -> FloatArray:
        """Turns (V, 3) movements of the model's vertices into those of skin, (V, 3) float64.

        The nose stays; cheeks stretch evenly between what moves and what does not.
        """
        skin = self._give * displacement
        skin[self._cheeks] = self._stretch @ skin[self._edges]
        return skin

    def deepened(self, vertices: FloatArray) -> FloatArray:
        """Gives (V, 3) vertices the depth of a head, about the middle of their landmarks."""
        middle = vertices[self._landmarks, 2].mean()
        deep = np.array(vertices)
        deep[:, 2] = middle + _DEPTH_SHARE * (vertices[:, 2] - middle)
        return deep

    def _harmonic(self, model: FaceModel) -> tuple[IntArray, IntArray, FloatArray]:
        """Returns cheek vertices, those that hold them, and what the first take of the second."""
        places = model.mean_shape[self._landmarks].astype(np.float64)
        eye_corners = list(LEFT_EYE_CORNERS + RIGHT_EYE_CORNERS)
        held = places[:, 1] < places[eye_corners, 1].mean() + _BELOW_EYES_DM
        held |= places[:, 1] > places[_LOWER_LIP, 1]
        held[list(FACE_OVAL + LIPS + LIDS + NOSE)] = True
        held |= self._give[self._landmarks, 0] < 1.0
        order = np.full(len(model.mean_shape), -1)
        order[self._landmarks] = np.arange(len(places))
        faces = order[model.faces]
        faces = faces[(faces >= 0).all(axis=1)]
        stiffness = np.zeros((len(places), len(places)))
        for a, b in ((0, 1), (1, 2), (2, 0)):
            ends = faces[:, a], faces[:, b]
            length = np.linalg.norm(places[ends[0]] - places[ends[1]], axis=1)
            stiffness[ends] = stiffness[ends[::-1]] = 1 / np.maximum(length, 1e-3)
        balance = np.diag(stiffness.sum(axis=1)) - stiffness
        free, fixed = np.flatnonzero(~held), np.flatnonzero(held)
        stretch = np.linalg.solve(balance[np.ix_(free, free)], -balance[np.ix_(free, fixed)])
        return self._landmarks[free], self._landmarks[fixed], stretch
