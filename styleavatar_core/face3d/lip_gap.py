# SPDX-License-Identifier: Apache-2.0
"""How far a mouth is open: the distance between the lips that all coefficients give together.

No single coefficient tells: lips close over an open jaw (``mouthClose``) and part over a shut one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from styleavatar_core.face3d.landmark_groups import LOWER_INNER_LIP, UPPER_INNER_LIP
from styleavatar_core.face3d.library import find_face_model
from styleavatar_core.types import FloatArray

_PASS_COUNT = 4  # coefficients that reach a bound leave the rest to the others


@dataclass(frozen=True, slots=True)
class LipGap:
    """The mean distance from upper to lower inner lip, downward, on a model's mean face.

    Attributes:
        at_rest: Where all coefficients are 0, decimetres; negative where lips overlap.
        directions: (E,) float64, decimetres per unit coefficient.
        expression_max: Largest coefficient of the model.
    """

    at_rest: float
    directions: FloatArray
    expression_max: float

    def of(self, expression: FloatArray) -> FloatArray:
        """Returns the gap of (..., E) coefficients, (...) float64 decimetres."""
        return self.at_rest + expression @ self.directions

    def with_gap(self, expression: FloatArray, gap: float, spread: FloatArray) -> FloatArray:
        """Returns the likeliest coefficients near these that give a gap, as far as bounds allow.

        Args:
            expression: (E,) within the bounds.
            gap: What is wanted, decimetres.
            spread: (E,) standard deviations; what varies much on a face moves first.

        Returns:
            (E,) float64 within the bounds.
        """
        wanted = np.array(expression, np.float64)
        for _ in range(_PASS_COUNT):
            missing = gap - float(self.of(wanted))
            room = np.where(missing * self.directions > 0, self.expression_max - wanted, wanted) > 0
            moves = np.where(room, spread**2 * self.directions, 0.0)
            length = float(moves @ self.directions)
            if length == 0.0:
                break
            wanted = np.clip(wanted + missing / length * moves, 0.0, self.expression_max)
        return wanted


@lru_cache
def lip_gap(model_id: str) -> LipGap:
    """Returns the gap's coefficients for a face model.

    Raises:
        AssetError: The model is not in the library.
    """
    model = find_face_model(model_id)
    upper, lower = (model.landmark_indices[list(lip)] for lip in (UPPER_INNER_LIP, LOWER_INNER_LIP))
    rest = (model.mean_shape[lower] - model.mean_shape[upper])[:, 1].mean()
    moved = (model.expression_basis[lower] - model.expression_basis[upper])[:, 1].mean(axis=0)
    return LipGap(float(rest), moved.astype(np.float64), model.expression_max)
