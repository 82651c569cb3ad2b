# SPDX-License-Identifier: Apache-2.0
import math

import cv2
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from styleavatar_core.evaluation.metrics import psnr, sharpness, ssim

RNG = np.random.default_rng(0)
TRUTH = cv2.GaussianBlur(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8), (0, 0), 1.5)
NOISY = np.clip(TRUTH.astype(int) + RNG.integers(-20, 21, TRUTH.shape), 0, 255).astype(np.uint8)
FACE = np.ones((64, 64), np.uint8)


def test_psnr_agrees_with_scikit_image():
    assert psnr(NOISY, TRUTH) == pytest.approx(peak_signal_noise_ratio(TRUTH, NOISY), abs=1e-3)
    assert psnr(TRUTH, TRUTH) == math.inf


def test_ssim_is_that_of_wang_et_al():
    assert ssim(NOISY, TRUTH) == pytest.approx(0.6297, abs=1e-3)  # written out by hand once
    assert ssim(TRUTH, TRUTH) == pytest.approx(1.0, abs=1e-5)


def test_sharpness_of_equal_blurred_and_faceless_pictures():
    assert sharpness(TRUTH, TRUTH, FACE) == pytest.approx(1.0)
    assert sharpness(cv2.GaussianBlur(TRUTH, (0, 0), 3), TRUTH, FACE) < 0.5
    assert sharpness(NOISY, TRUTH, FACE) > 1.0
    assert math.isnan(sharpness(TRUTH, TRUTH, FACE * 0))
    assert math.isnan(sharpness(TRUTH, TRUTH * 0, FACE))
