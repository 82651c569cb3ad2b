# SPDX-License-Identifier: Apache-2.0
"""Size of a person's hair and neck, from the outline of their foreground mask.

The face model's directions that move no landmark (the built-in model's head shell) stay at zero in
Eq. 2. They are found by comparing silhouettes: the head should cover the person and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from styleavatar_core.face3d.camera import project, to_pixels
from styleavatar_core.face3d.model import FaceModel
from styleavatar_core.raster.software import rasterize
from styleavatar_core.types import ByteArray, FaceParameters, FloatArray

_CHIN = 152
_STEPS = (4.0, 2.0, 1.0, 0.5)  # of the search, in coefficients
_LIMIT = 5.0
_BELOW_CHIN_SHARE = 0.15  # an uncovered person counts only this much there: clothes are no neck


def unseen_directions(model: FaceModel) -> npt.NDArray[np.int64]:
    """Returns the identity directions that no landmark shows, (N,) int64."""
    landmarks = model.identity_basis[model.landmark_indices]
    return np.flatnonzero(np.abs(landmarks).max(axis=(0, 1)) == 0)


def fit_silhouette(
    model: FaceModel,
    identity: FloatArray,
    parameters: Sequence[FaceParameters],
    masks: Sequence[ByteArray],
) -> FloatArray:
    """Finds the coefficients of the unseen directions by coordinate search.

    Args:
        model: The face model.
        identity: (I,) float32 coefficients that the landmarks gave.
        parameters: Of some frames, in the coordinates of the masks' square.
        masks: (S, S) uint8 each, above 127 = person.

    Returns:
        (I,) float32 with the unseen directions filled in.
    """
    found = np.array(identity, np.float32)
    directions = unseen_directions(model)
    if not len(directions) or not len(masks):
        return found
    best = _mismatch(model, found, parameters, masks)
    for step in _STEPS:
        for direction in directions:
            for move in (-step, step):
                tried = found.copy()
                tried[direction] = np.clip(tried[direction] + move, -_LIMIT, _LIMIT)
                error = _mismatch(model, tried, parameters, masks)
                if error < best:
                    best, found = error, tried
    return found


def _mismatch(
    model: FaceModel,
    identity: FloatArray,
    parameters: Sequence[FaceParameters],
    masks: Sequence[ByteArray],
) -> float:
    """Counts pixels where head and person disagree; above the chin both ways alike."""
    neutral, total = model.neutral(identity), 0.0
    for frame, mask in zip(parameters, masks, strict=True):
        side = len(mask)
        vertices = model.vertices(neutral, frame.expression, frame.eye_rotation)
        points = to_pixels(project(vertices, frame), side, side)
        head = rasterize(points, model.faces, side, side).face_index >= 0
        person = mask > 127
        chin = int(np.clip(points[model.landmark_indices[_CHIN], 1], 0, side))
        uncovered = person & ~head
        total += (head & ~person).sum() + uncovered[:chin].sum()
        total += _BELOW_CHIN_SHARE * uncovered[chin:].sum()
    return total
