# SPDX-License-Identifier: Apache-2.0
"""The clean plate of a photograph: its background, without the person in front of it."""

from __future__ import annotations

import cv2
import numpy as np

from styleavatar_core.types import ByteArray, FloatArray


def clean_plate(image: ByteArray, matte: FloatArray) -> FloatArray:
    """Fills the person's place smoothly with the background around it.

    Args:
        image: (S, S, 3) uint8 RGB.
        matte: (S, S) float32 in [0, 1], 1 on the person.

    Returns:
        (S, S, 3) float32 in [0, 255].
    """
    known = cv2.erode((matte < 0.05).astype(np.uint8), np.ones((5, 5), np.uint8))
    filled, weight = image.astype(np.float32) * known[..., None], known.astype(np.float32)
    result, done = filled.copy(), weight.copy()
    sigma = 2.0
    # From fine to coarse: each pixel takes the finest blur that knows anything about it.
    while done.min() < 1.0 and sigma < 4 * len(image):
        share = cv2.GaussianBlur(weight, (0, 0), sigma)
        blurred = cv2.GaussianBlur(filled, (0, 0), sigma) / np.maximum(share, 1e-6)[..., None]
        part = np.clip(share * 2, 0, 1) * (1 - done)
        result += blurred * part[..., None]
        done += part
        sigma *= 2
    return result / np.maximum(done, 1e-6)[..., None]
