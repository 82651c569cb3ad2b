# SPDX-License-Identifier: Apache-2.0
"""How well an avatar follows its driver: correlations of what was asked with what is seen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from styleavatar_core.face3d.arkit import ARKIT_NAMES
from styleavatar_core.face3d.camera import rotation_vector_from_quaternion
from styleavatar_core.types import FaceParameters, FloatArray

_CONTROLS = {
    "mouth_r": ("jawOpen",),
    "smile_r": ("mouthSmileLeft", "mouthSmileRight"),
    "lids_r": ("eyeBlinkLeft", "eyeBlinkRight"),
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
        ``pitch_r``, ``yaw_r``, ``roll_r``, ``mouth_r``, ``smile_r``, ``lids_r``, ``gaze_r``; NaN
        where the driver does not move. Besides ``frame_count``.
    """
    asked, seen = _rotations(driver), _rotations(output)
    figures = {
        f"{axis}_r": pearson(asked[:, i], seen[:, i])
        for i, axis in enumerate(("pitch", "yaw", "roll"))
    }
    weights = asked.var(axis=0)
    by_axis = np.nan_to_num(np.array([figures["pitch_r"], figures["yaw_r"], figures["roll_r"]]))
    figures["rotation_r"] = float((weights * by_axis).sum() / max(weights.sum(), 1e-12))
    for name, coefficients in _CONTROLS.items():
        places = [ARKIT_NAMES.index(coefficient) for coefficient in coefficients]
        figures[name] = pearson(_mean(driver, places), _mean(output, places))
    figures["gaze_r"] = pearson(_gaze_yaw(driver), _gaze_yaw(output))
    return {**figures, "frame_count": float(len(driver))}


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
