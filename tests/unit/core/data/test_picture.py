# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from styleavatar_core.data.picture import SYNTHETIC_NOTE, contact_sheet, decode_jpeg, encode_jpeg


@pytest.mark.parametrize("shape", [(128, 256, 3), (256, 128, 3), (128, 256), (60, 80, 3)])
def test_a_picture_that_is_not_square_keeps_its_shape_in_a_sheet(shape: tuple[int, ...]) -> None:
    height, width = shape[:2]
    picture = np.zeros(shape, np.uint8)
    cv2.circle(picture, (width // 2, height // 2), min(height, width) // 3, (255,) * 3, -1)
    sheet = contact_sheet([[picture, np.full((64, 64, 3), 9, np.uint8)]], 100)
    assert sheet.shape == (100, 200, 3)
    disc = sheet[:98, :98, 0] > 127
    rows, columns = np.flatnonzero(disc.any(axis=1)), np.flatnonzero(disc.any(axis=0))
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=1)
    diameter = 98 * 2 / 3 * min(height, width) / max(height, width)
    assert np.ptp(rows) == pytest.approx(diameter, abs=2)
    for places in (rows, columns):  # in the middle
        assert places.mean() == pytest.approx(48.5, abs=1)
    assert (sheet[:98, 100:198] == 9).all()
    assert (sheet[98:] == 255).all()


def test_a_picture_of_an_avatar_says_so_and_is_a_jpeg_as_any_other() -> None:
    data = encode_jpeg(np.full((16, 24, 3), (200, 30, 30), np.uint8))
    assert data[6:10] == b"JFIF"
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.info["comment"] == SYNTHETIC_NOTE.encode()
    assert np.abs(decode_jpeg(data).astype(int) - (200, 30, 30)).max() < 8
