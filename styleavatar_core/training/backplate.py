# SPDX-License-Identifier: Apache-2.0
"""What is behind the person: one picture of the canvas, put together from many frames."""

from __future__ import annotations

import cv2
import numpy as np

from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.types import ByteArray

_FRAME_COUNT = 64
_MARGIN_SHARE = 0.02  # of the canvas: mattes are soft and end a little too early
_PERSON_LEVEL = 12  # of 255: more than this is the person
_FILL_PX = 128  # side at which the rest is filled
_FILL_RADIUS_PX = 4


def backplate(dataset: AvatarDataset) -> ByteArray:
    """Averages each pixel over the training frames that show background there.

    What the person always hides is filled smoothly from its surroundings.

    Args:
        dataset: The clip; its camera should stand still.

    Returns:
        (S, S, 3) uint8 RGB, the canvas.
    """
    train = dataset.train_indices
    picked = np.linspace(0, len(train) - 1, min(_FRAME_COUNT, len(train))).round().astype(int)
    side = dataset.frames.shape[1]
    margin = max(1, round(_MARGIN_SHARE * side))
    grow = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
    total, weight = np.zeros((side, side, 3), np.float32), np.zeros((side, side, 1), np.float32)
    for index in picked:
        person = cv2.dilate(np.ascontiguousarray(dataset.masks[index]), grow) > _PERSON_LEVEL
        seen = np.float32(~person)[..., None]
        total += dataset.frames[index] * seen
        weight += seen
    mean = np.rint(total / np.maximum(weight, 1.0)).astype(np.uint8)
    return _fill(mean, np.uint8(weight[..., 0] == 0))


def _fill(picture: ByteArray, holes: ByteArray) -> ByteArray:
    """Fills holes (1) smoothly; computed small, as nothing fine can be known of them."""
    if not holes.any():
        return picture
    side = picture.shape[0]
    scale = (min(_FILL_PX, side), min(_FILL_PX, side))
    small = cv2.resize(picture, scale, interpolation=cv2.INTER_AREA)
    touched = np.uint8(cv2.resize(holes * 255, scale, interpolation=cv2.INTER_AREA) > 0)
    filled = cv2.inpaint(small, touched, _FILL_RADIUS_PX, cv2.INPAINT_TELEA)
    large = cv2.resize(filled, (side, side), interpolation=cv2.INTER_LINEAR)
    return np.where(holes[..., None] > 0, large, picture)
