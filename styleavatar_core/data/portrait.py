# SPDX-License-Identifier: Apache-2.0
"""Choosing the portrait window: one fixed square per clip around head and shoulders (Sec. 3.1)."""

from __future__ import annotations

import numpy as np

from styleavatar_core.errors import FaceNotFoundError
from styleavatar_core.types import CropBox, FloatArray

CANVAS_FACTOR = 1.5  # the paper's enlargement of the crop box
WINDOW_FACE_HEIGHTS = 2.4  # side of the window over the height of the face mesh
_HEAD_SHIFT = 0.2  # the face's middle lies this many face heights above the window's


def choose_window(landmarks: FloatArray, width: int, height: int) -> CropBox:
    """Chooses the square that the avatar will show.

    Args:
        landmarks: (T, K, 3) or (T, K, 2) float, pixels; rows of NaN where no face was found.
        width: Frame width, pixels.
        height: Frame height, pixels.

    Returns:
        A square inside the frame, in frame coordinates.

    Raises:
        FaceNotFoundError: No frame has a face.
    """
    # Reduced before anything is chosen: landmarks of a long clip lie in a file.
    low, high = (reduce(landmarks, axis=1)[:, :2] for reduce in (np.min, np.max))
    has_face = np.isfinite(low).all(axis=1)
    low, high = low[has_face], high[has_face]
    if len(low) == 0:
        raise FaceNotFoundError("no face was found in any frame; use a video of one person's face")
    face_height = float(np.median(high[:, 1] - low[:, 1]))
    side = min(WINDOW_FACE_HEIGHTS * face_height, width, height)
    center_x, center_y = (float(value) for value in np.median((low + high) / 2, axis=0))
    center_y += _HEAD_SHIFT * face_height
    center_x = float(np.clip(center_x, side / 2, width - side / 2))
    center_y = float(np.clip(center_y, side / 2, height - side / 2))
    return CropBox(
        (center_x - width / 2) / (height / 2),
        (center_y - height / 2) / (height / 2),
        side / height,
    )
