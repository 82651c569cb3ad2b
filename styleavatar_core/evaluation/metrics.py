# SPDX-License-Identifier: Apache-2.0
"""Image metrics (paper, Tables 1-3): PSNR, SSIM, sharpness of the face and flicker."""

from __future__ import annotations

import math

import cv2
import numpy as np

from styleavatar_core.types import ByteArray


def psnr(image: ByteArray, truth: ByteArray) -> float:
    """Returns the peak signal-to-noise ratio in decibels; infinite for equal images.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: (H, W, 3) uint8 RGB.
    """
    error = np.mean(np.square(image.astype(np.float32) - truth.astype(np.float32)))
    return math.inf if error == 0 else float(10 * np.log10(255.0**2 / error))


def ssim(image: ByteArray, truth: ByteArray) -> float:
    """Returns the mean structural similarity in [-1, 1] over pixels and channels.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: (H, W, 3) uint8 RGB.
    """
    # Not at the top: engines are measured, and their pictures compared, where it is not installed.
    from skimage.metrics import structural_similarity

    return float(
        structural_similarity(
            image.astype(np.float32),
            truth.astype(np.float32),
            data_range=255,
            channel_axis=2,
            gaussian_weights=True,  # with the next two, the definition of Wang et al.
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def sharpness(image: ByteArray, truth: ByteArray, face_mask: ByteArray) -> float:
    """Returns the mean absolute Laplacian of the face, output over truth; 1 is as sharp.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: (H, W, 3) uint8 RGB.
        face_mask: (H, W) uint8, not 0 in the face.

    Returns:
        The ratio, or NaN when there is no face or the true face has no detail.
    """
    inside = cv2.erode(face_mask, np.ones((3, 3), np.uint8)) > 0
    detail = _detail(truth, inside)
    return _detail(image, inside) / detail if inside.any() and detail > 0 else math.nan


def flicker(
    image: ByteArray, before: ByteArray, truth: ByteArray, truth_before: ByteArray
) -> float:
    """Returns how differently output and truth change from one frame to the next.

    Args:
        image: (H, W, 3) uint8 RGB, a frame of the output.
        before: The output's frame before it.
        truth: The true frame.
        truth_before: The true frame before it.

    Returns:
        Mean absolute difference of the two changes, in steps of uint8; 0 when the output changes
        exactly as the truth does, whatever else is wrong with it.
    """
    change = image.astype(np.int16) - before.astype(np.int16)
    true_change = truth.astype(np.int16) - truth_before.astype(np.int16)
    return float(np.abs(change - true_change).mean())


def remove_background(image: ByteArray, person: ByteArray) -> ByteArray:
    """Returns the picture on black, as the paper compares methods that draw no background.

    Args:
        image: (H, W, 3) uint8 RGB.
        person: (H, W) uint8, 255 = person.
    """
    return ((image.astype(np.uint16) * person[..., None] + 127) // 255).astype(np.uint8)


def _detail(image: ByteArray, inside: np.ndarray) -> float:
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    laplacian = np.abs(cv2.Laplacian(gray, cv2.CV_32F))
    return float(laplacian[inside].mean()) if inside.any() else 0.0
