# SPDX-License-Identifier: Apache-2.0
"""A person who talks, blinks and nods by known curves, and the avatar that was made of them."""

from __future__ import annotations

import numpy as np

from styleavatar_core.avatar.reenactment import (
    ParameterStatistics,
)
from styleavatar_core.avatar.statistics import measure_closed_lip_gap
from styleavatar_core.face3d.arkit import ARKIT_INDEX
from styleavatar_core.face3d.camera import (
    parameters_in_crop,
    quaternion_from_rotation_vector,
)
from styleavatar_core.types import CropBox, FaceParameters

WINDOW = CropBox(0.1, -0.1, 0.8)
JAW, BLINK, SMILE = (ARKIT_INDEX[n] for n in ("jawOpen", "eyeBlinkLeft", "mouthSmileLeft"))


def person(
    count: int, *, scale: float, rest: float, seed: int, yaw: float = 0.0
) -> list[FaceParameters]:
    """A talking, blinking, nodding person, in frame coordinates."""
    rng = np.random.default_rng(seed)
    frames = []
    for index in range(count):
        t = index / 30
        expression = np.zeros(52, np.float32)
        expression[JAW] = rest + 0.35 * max(0.0, np.sin(6 * t))
        expression[BLINK] = 1.0 if index % 45 < 3 else 0.05
        expression[SMILE] = rest + 0.2 * max(0.0, np.sin(t))
        rotation = np.array([0.12 * np.sin(t), yaw + 0.2 * np.sin(0.7 * t), 0.08 * np.sin(1.3 * t)])
        place = np.array([0.2 * np.sin(0.5 * t), 0.1, 0.0]) + rng.normal(size=3) * 0.002
        frames.append(
            FaceParameters(
                "builtin-3",
                quaternion_from_rotation_vector(rotation),
                place.astype(np.float32),
                scale * (1 + 0.03 * np.sin(t)),
                expression,
                np.full((2, 2), 0.1 * np.sin(t), np.float32),
                frame_index=index,
            )
        )
    return frames


AVATAR = [parameters_in_crop(p, WINDOW) for p in person(300, scale=0.6, rest=0.05, seed=0)]
STATISTICS = ParameterStatistics.from_parameters(
    AVATAR, WINDOW, closed_lip_gap=measure_closed_lip_gap(AVATAR)
)
