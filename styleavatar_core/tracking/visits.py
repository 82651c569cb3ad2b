# SPDX-License-Identifier: Apache-2.0
"""Whose clip it is, where several people are seen one after the other.

A visit is a part of a clip before and after which nobody was seen for so long that the next face
may be somebody else's. Whether it is, the shape of the face tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from styleavatar_core.data.spread import spread_evenly
from styleavatar_core.errors import InvalidInputError
from styleavatar_core.face3d.camera import from_pixels
from styleavatar_core.face3d.model import FaceModel
from styleavatar_core.tracking.fitter import FaceFitter
from styleavatar_core.tracking.identity import fit_identity
from styleavatar_core.tracking.landmarks import GIVE_UP_S
from styleavatar_core.types import FloatArray

Indices = npt.NDArray[np.int64]

_SHAPE_FRAME_COUNT = 50
# Two visits are those of two people if the landmarks at rest are so far apart on average: it was
# 0.1 to 0.73 mm between parts of 3 s and more of one person's clip and the whole of it, 0.93 to
# 2.2 mm between four people's clips, 0.81 to 1.1 mm for the two who look alike.
_STRANGER_DISTANCE_MM = 0.8
_TELLING_S = 3.0  # parts of one second were up to 1.26 mm apart: too short to tell a stranger
_MM_PER_UNIT = 100.0


@dataclass(frozen=True, slots=True)
class OtherFrames:
    """Frames of a clip that show a face which is not that of the person whose clip it is.

    Attributes:
        strangers: (N,) int64 indices of frames that show somebody else.
        unclear: (M,) int64 indices of frames of visits that are unlike, but too short to tell.
    """

    strangers: Indices
    unclear: Indices


def find_others(
    model: FaceModel, landmarks: FloatArray, times: Sequence[float], width: int, height: int
) -> OtherFrames:
    """Finds the frames that show somebody else than the person whose clip it is.

    That person is seen in more than half of the frames with a face: of those of long visits, or, if
    these are fewer than the others, of all.

    Args:
        model: The face model.
        landmarks: (T, 478, 3) pixels, NaN where there is no face.
        times: T capture times, seconds.
        width: Frame width, pixels.
        height: Frame height, pixels.

    Raises:
        InvalidInputError: There is no such person.
    """
    visits = sorted(_visits(landmarks, times), key=len, reverse=True)
    if len(visits) < 2:
        return OtherFrames(_joined([]), _joined([]))
    shapes = np.stack([_shape(model, landmarks, visit, width, height) for visit in visits])
    lengths_s = np.array([times[visit[-1]] - times[visit[0]] for visit in visits])
    sizes = np.array([len(visit) for visit in visits])
    is_long = lengths_s >= _TELLING_S
    # Of a clip of moments they must tell whose it is; none of them is called a stranger's.
    tells = is_long if 2 * sizes[is_long].sum() > sizes.sum() else np.ones_like(is_long)
    sizes *= tells
    is_left = tells.copy()
    while is_left.any():
        distances_mm = np.linalg.norm(shapes - shapes[is_left.argmax()], axis=-1).mean(axis=-1)
        is_same = distances_mm < _STRANGER_DISTANCE_MM
        if 2 * sizes[is_same].sum() > sizes.sum():
            pairs = list(zip(visits, ~is_same & is_long, ~is_same & ~is_long, strict=True))
            return OtherFrames(
                _joined([visit for visit, is_stranger, _ in pairs if is_stranger]),
                _joined([visit for visit, _, is_unclear in pairs if is_unclear]),
            )
        is_left &= ~is_same
    raise InvalidInputError(
        "several people are seen one after the other, and nobody in more than half of the frames "
        "that show a face. Use a video of one person",
        reason="SEVERAL_PEOPLE",
    )


def _joined(visits: Sequence[Indices]) -> Indices:
    return np.concatenate([np.zeros(0, np.int64), *visits])


def _visits(landmarks: FloatArray, times: Sequence[float]) -> list[Indices]:
    """Returns the frames with a face, parted where nobody was seen for long."""
    found = np.flatnonzero(np.isfinite(landmarks[:, 0, 0]))
    gaps = np.diff(np.asarray(times, np.float64)[found])
    return np.split(found, np.flatnonzero(gaps > GIVE_UP_S) + 1)


def _shape(
    model: FaceModel, landmarks: FloatArray, visit: Indices, width: int, height: int
) -> FloatArray:
    """Returns the face at rest of who is seen in a visit: (478, 3) landmarks, mm, centred."""
    fitter = FaceFitter(model)
    chosen = landmarks[spread_evenly(list(visit), _SHAPE_FRAME_COUNT)]
    faces = [from_pixels(pixels, width, height).astype(np.float64) for pixels in chosen]
    fit_identity(fitter, faces)
    points = _MM_PER_UNIT * model.neutral(fitter.identity)[model.landmark_indices]
    centred: FloatArray = points - points.mean(axis=0)
    return centred
