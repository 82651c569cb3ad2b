# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from styleavatar_core.data.crop import crop_image, valid_mask
from styleavatar_core.data.portrait import choose_window
from styleavatar_core.errors import FaceNotFoundError
from styleavatar_core.face3d.camera import parameters_in_crop, project, to_pixels
from styleavatar_core.types import CropBox, FaceParameters

PARAMS = FaceParameters(
    model_id="any",
    rotation=np.array([1, 0, 0, 0], np.float32),
    translation=np.array([0.3, -0.2, 0], np.float32),
    scale=0.4,
    expression=np.zeros(52, np.float32),
    eye_rotation=np.zeros((2, 2), np.float32),
)


def blob(width, height, x, y, sigma):
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2)).astype(np.float32)


def center_of_mass(image):
    rows, columns = np.indices(image.shape) + 0.5
    return float((image * columns).sum() / image.sum()), float((image * rows).sum() / image.sum())


@pytest.mark.parametrize("size_px", [64, 150, 333])
@pytest.mark.parametrize("crop", [CropBox(0.1, -0.07, 0.6), CropBox(0.12, -0.1, 1.3)])
def test_crop_agrees_with_the_camera(crop, size_px):
    point = np.array([[0.2, 0.1, 0.0]], np.float32)
    (x, y, _), *_ = to_pixels(project(point, PARAMS), 320, 240)
    cut = crop_image(blob(320, 240, x, y, 8.0), crop, size_px)
    (wanted_x, wanted_y, _), *_ = to_pixels(
        project(point, parameters_in_crop(PARAMS, crop)), size_px, size_px
    )
    assert center_of_mass(cut) == pytest.approx((wanted_x, wanted_y), abs=0.1)


def test_outside_the_frame_the_border_repeats_and_is_invalid():
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, 0] = 200
    crop = CropBox(-1.0, 0.0, 1.0)  # its left half lies outside
    cut, valid = crop_image(image, crop, 40), valid_mask(crop, 40, 40, 40)
    assert (cut[:, :19] == 200).all()
    assert not valid[:, :19].any()
    assert valid[:, 21:].all()
    assert (cut[:, 22:] == 0).all()


def test_shrinking_averages_instead_of_skipping():
    checks = np.indices((256, 256)).sum(axis=0) % 2 * 255
    cut = crop_image(checks.astype(np.uint8), CropBox(0, 0, 1), 32)
    assert abs(float(cut.mean()) - 127.5) < 3
    assert cut.std() < 3


def test_window_is_inside_and_below_the_face():
    landmarks = np.full((3, 4, 2), np.nan, np.float32)
    landmarks[1] = [[300, 100], [400, 100], [300, 200], [400, 200]]
    window = choose_window(landmarks, 640, 480)
    side = window.half_size * 480
    center = np.array([window.center_x, window.center_y]) * 240 + (320, 240)
    assert side == pytest.approx(240)  # 2.4 face heights
    assert center == pytest.approx((350, 170))


def test_window_without_faces():
    with pytest.raises(FaceNotFoundError):
        choose_window(np.full((3, 4, 2), np.nan, np.float32), 640, 480)
