# SPDX-License-Identifier: Apache-2.0
"""What a clip shows of a person and of the room, before any training: one picture of each.

The neural texture and the background start from them: what thin lines there are (glasses, brows,
moles) need not be learned by a generator that starts from noise.
"""

from __future__ import annotations

import cv2
import numpy as np

from styleavatar_core.data.dataset import AvatarDataset, decode_uv
from styleavatar_core.types import ByteArray, FloatArray

_FRAME_COUNT = 96
_MARGIN_SHARE = 0.02  # of the canvas: mattes are soft and end a little too early
_PERSON_LEVEL = 12  # of 255: more than this is the person
_NEAR_WEIGHT = 0.05  # of background so close to the person
_COARSE_WEIGHT = 1.0  # observations that the next coarser level counts as


def backplate(dataset: AvatarDataset) -> ByteArray:
    """Averages each pixel over the training frames that show background there.

    What the person always hides is filled smoothly from its surroundings.

    Args:
        dataset: The clip; its camera should stand still.

    Returns:
        (S, S, 3) uint8 RGB, the canvas.
    """
    side = dataset.frames.shape[1]
    margin = max(1, round(_MARGIN_SHARE * side))
    grow = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
    total, weight = np.zeros((side, side, 3)), np.zeros((side, side))
    for index in _spread_frames(dataset):
        matte = np.ascontiguousarray(dataset.masks[index])
        is_near = cv2.dilate(matte, grow) > _PERSON_LEVEL
        seen = np.where(is_near, _NEAR_WEIGHT, 1.0) * (matte <= _PERSON_LEVEL)
        total += dataset.frames[index] * seen[..., None]
        weight += seen
    return _picture(total, weight)


def unwrapped_texture(dataset: AvatarDataset, side: int) -> ByteArray:
    """Averages the colours that the training frames show at each place of UV space.

    Each pixel of the face gives its colour to the four texels around its UV position, as far as the
    matte says that it is the person's. Where the surface turns away fewer pixels fall on a texel,
    so that views from the front count more.

    Args:
        dataset: The clip.
        side: Texels per side.

    Returns:
        (side, side, 3) uint8 RGB. Texels that no frame shows are filled smoothly.
    """
    total, weight = np.zeros((side * side, 3)), np.zeros(side * side)
    for index in _spread_frames(dataset):
        uv, face_mask = decode_uv(dataset.uv[index])
        shown = face_mask > 0
        size = face_mask.shape[::-1]
        colors = cv2.resize(dataset.frames[index], size, interpolation=cv2.INTER_AREA)[shown]
        matte = cv2.resize(dataset.masks[index], size, interpolation=cv2.INTER_AREA)[shown]
        place = np.clip(uv[shown].astype(np.float64) * side - 0.5, 0, side - 1.001)
        corner = np.floor(place).astype(np.int64)
        right, down = (place - corner).T
        for x, y in ((0, 0), (1, 0), (0, 1), (1, 1)):
            share = (right if x else 1 - right) * (down if y else 1 - down) * (matte / 255.0)
            texel = (corner[:, 1] + y) * side + corner[:, 0] + x
            weight += np.bincount(texel, share, side * side)
            for channel in range(3):
                total[:, channel] += np.bincount(texel, share * colors[:, channel], side * side)
    return _picture(total.reshape(side, side, 3), weight.reshape(side, side))


def _spread_frames(dataset: AvatarDataset) -> list[int]:
    """Returns training frames spread evenly over the clip."""
    train = dataset.train_indices
    places = np.linspace(0, len(train) - 1, min(_FRAME_COUNT, len(train)))
    return [train[int(place)] for place in places.round()]


def _picture(total: FloatArray, weight: FloatArray) -> ByteArray:
    """Divides (S, S, 3) by (S, S); what was hardly seen comes from its surroundings."""
    return np.rint(np.clip(_mean(total, weight), 0, 255)).astype(np.uint8)


def _mean(total: FloatArray, weight: FloatArray) -> FloatArray:
    """Averages level by level of a pyramid: the coarser mean counts as a few observations more."""
    side = len(weight)
    if side == 1:
        return total / np.maximum(weight, 1e-6)[..., None]
    half = ((side + 1) // 2,) * 2
    sums, weights = (4 * cv2.resize(x, half, interpolation=cv2.INTER_AREA) for x in (total, weight))
    sums, weights = sums.reshape(*half, 3), weights.reshape(half)
    coarse = cv2.resize(_mean(sums, weights), (side, side), interpolation=cv2.INTER_LINEAR)
    return (total + _COARSE_WEIGHT * coarse) / (weight + _COARSE_WEIGHT)[..., None]
