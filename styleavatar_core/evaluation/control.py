# SPDX-License-Identifier: Apache-2.0
"""How well an avatar follows its driver: correlations of what was asked with what is seen.

A mouth's opening is the distance between the lips (``face3d/lip_gap.py``). The jaw's own
coefficient, ``jawOpen``, is correlated besides; it, smile and lids only where coefficients have
names, which FaceVerse v4's have not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from styleavatar_core.face3d.arkit import ARKIT_NAMES
from styleavatar_core.face3d.camera import rotation_vector_from_quaternion
from styleavatar_core.face3d.lip_gap import lip_gap
from styleavatar_core.types import FaceParameters, FloatArray

_AXES = ("pitch", "yaw", "roll")
_MM_PER_UNIT = 100.0  # models are in decimetres
_CONTROLS = {
    "jaw": ("jawOpen",),
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
    "lids": ("eyeBlinkLeft", "eyeBlinkRight"),
}


def control_fidelity(
    driver: Sequence[FaceParameters], output: Sequence[FaceParameters]
) -> dict[str, float]:
    """Correlates a driver's parameters with those tracked on the avatar's pictures.

    Args:
        driver: What drove the avatar, frame by frame.
        output: What a tracker sees in the pictures, the same frames.

    Returns:
        Pearson r: ``rotation_r`` (mean of the axes that move, weighted by their variance),
        ``pitch_r``, ``yaw_r``, ``roll_r``, ``mouth_r``, ``jaw_r``, ``smile_r``, ``lids_r``,
        ``gaze_r``; NaN where the driver does not move, and no ``jaw_r``, ``smile_r`` and ``lids_r``
        where coefficients have no names. Besides ``frame_count``.
    """
    series = control_series(driver, output)
    figures = {f"{name}_r": pearson(asked, seen) for name, (asked, seen) in series.items()}
    weights = np.array([series[axis][0].var() for axis in _AXES])
    by_axis = np.nan_to_num(np.array([figures[f"{axis}_r"] for axis in _AXES]))
    figures["rotation_r"] = float((weights * by_axis).sum() / max(weights.sum(), 1e-12))
    return {**figures, "frame_count": float(len(driver))}


def control_series(
    driver: Sequence[FaceParameters], output: Sequence[FaceParameters]
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Returns what was asked and what is seen, frame by frame.

    Args:
        driver: What drove the avatar.
        output: What a tracker sees in the pictures, the same frames.

    Returns:
        Two (T,) series each of ``pitch``, ``yaw``, ``roll`` (radians), ``mouth`` (distance between
        the lips, mm), ``jaw``, ``smile``, ``lids`` (coefficients; absent where these have no
        names) and ``gaze`` (yaw of the eyes, radians).
    """
    asked, seen = _rotations(driver), _rotations(output)
    series = {axis: (asked[:, i], seen[:, i]) for i, axis in enumerate(_AXES)}
    series["mouth"] = _lip_gaps(driver), _lip_gaps(output)
    has_names = len(driver[0].expression) == len(ARKIT_NAMES)
    for name, coefficients in _CONTROLS.items() if has_names else ():
        places = [ARKIT_NAMES.index(coefficient) for coefficient in coefficients]
        series[name] = _mean(driver, places), _mean(output, places)
    series["gaze"] = _gaze_yaw(driver), _gaze_yaw(output)
    return series


def rotation_error_deg(driver: Sequence[FaceParameters], output: Sequence[FaceParameters]) -> float:
    """Returns the mean angle between asked and seen head rotations, degrees."""
    cosines = [
        abs(float(np.dot(d.rotation, o.rotation))) for d, o in zip(driver, output, strict=True)
    ]
    return float(np.degrees(2 * np.arccos(np.clip(cosines, 0.0, 1.0))).mean())


def pearson(x: FloatArray, y: FloatArray) -> float:
    """Returns the correlation of two series, NaN when one does not move."""
    if x.std() < 1e-6 or y.std() < 1e-6:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def _rotations(parameters: Sequence[FaceParameters]) -> FloatArray:
    return np.stack([rotation_vector_from_quaternion(p.rotation) for p in parameters])


def _mean(parameters: Sequence[FaceParameters], places: list[int]) -> FloatArray:
    return np.array([p.expression[places].mean() for p in parameters])


def _gaze_yaw(parameters: Sequence[FaceParameters]) -> FloatArray:
    return np.array([p.eye_rotation[:, 1].mean() for p in parameters])


def _lip_gaps(parameters: Sequence[FaceParameters]) -> FloatArray:
    expressions = np.stack([p.expression for p in parameters])
    return _MM_PER_UNIT * lip_gap(parameters[0].model_id).of(expressions)
