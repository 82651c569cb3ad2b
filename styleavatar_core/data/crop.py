# SPDX-License-Identifier: Apache-2.0
"""Cutting a square out of a frame, pixel-exact with ``face3d.camera`` (paper, Sec. 3.1).

The square may reach outside the frame: there the border is repeated and a mask says so.
"""

from __future__ import annotations

import cv2
import numpy as np

from styleavatar_core.types import ByteArray, CropBox, FloatArray


def crop_matrix(crop: CropBox, width: int, height: int, size_px: int) -> FloatArray:
    """Returns the (2, 3) float32 map from crop pixel indices to frame pixel indices.

    Pixel (i, j) has its centre at (i + 0.5, j + 0.5), as everywhere; OpenCV counts centres as
    integers, hence the halves.

    Args:
        crop: The square, in frame coordinates.
        width: Frame width, pixels.
        height: Frame height, pixels.
        size_px: Side of the picture that is cut out.
    """
    side = crop.half_size * height  # frame pixels
    step = side / size_px
    left = width / 2 + crop.center_x * height / 2 - side / 2
    top = height / 2 + crop.center_y * height / 2 - side / 2
    shift = 0.5 * step - 0.5
    return np.array([[step, 0, left + shift], [0, step, top + shift]], np.float32)


def crop_image(image: np.ndarray, crop: CropBox, size_px: int) -> np.ndarray:
    """Cuts a square out and resamples it, averaging where it shrinks.

    Args:
        image: (H, W, C) or (H, W), uint8 or float32.
        crop: The square, in frame coordinates.
        size_px: Side of the result.

    Returns:
        (size_px, size_px, C) or (size_px, size_px), same type.
    """
    height, width = image.shape[:2]
    matrix = crop_matrix(crop, width, height, size_px)
    step = float(matrix[0, 0])
    if step <= 1.0:
        return _warp(image, matrix, size_px, cv2.INTER_LINEAR)
    # Sampling between pixels would alias: take several samples per pixel, then average them.
    factor = int(np.ceil(step))
    fine = crop_matrix(crop, width, height, size_px * factor)
    sampled = _warp(image, fine, size_px * factor, cv2.INTER_LINEAR)
    return cv2.resize(sampled, (size_px, size_px), interpolation=cv2.INTER_AREA)


def valid_mask(crop: CropBox, width: int, height: int, size_px: int) -> ByteArray:
    """Says which pixels of a crop lie inside the frame: (size_px, size_px) uint8, 1 inside."""
    matrix = crop_matrix(crop, width, height, size_px)
    index = np.arange(size_px)
    x = matrix[0, 0] * index + matrix[0, 2]
    y = matrix[1, 1] * index + matrix[1, 2]
    columns = (x > -1.0) & (x < width)
    rows = (y > -1.0) & (y < height)
    return (rows[:, None] & columns[None, :]).astype(np.uint8)


def _warp(image: np.ndarray, matrix: FloatArray, size_px: int, interpolation: int) -> np.ndarray:
    return cv2.warpAffine(
        image,
        matrix,
        (size_px, size_px),
        flags=interpolation | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
