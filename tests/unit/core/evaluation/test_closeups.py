# SPDX-License-Identifier: Apache-2.0
"""Cuts show the parts that they are named for."""

from __future__ import annotations

import numpy as np
import pytest

from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.data.picture import decode_jpeg
from styleavatar_core.evaluation.closeups import PARTS, closeups_sheet, cut
from styleavatar_core.evaluation.evaluate import held_out_truth, landmark_pixels
from styleavatar_core.face3d.landmark_groups import LEFT_EYE, LIPS, NOSE, RIGHT_EYE
from tests.fakes.prepared_clip import write_prepared_clip

SIDE = 256


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> AvatarDataset:
    return write_prepared_clip(
        tmp_path_factory.mktemp("clip"), size_px=SIDE, frame_count=6, train_count=4
    )


def test_squares_hold_their_part_and_no_other(dataset: AvatarDataset) -> None:
    pixels = landmark_pixels(dataset, 4, SIDE)

    def inside(name: str, group: tuple[int, ...]) -> float:
        x, y, side = PARTS[name](pixels)
        return float(np.mean(np.abs(pixels[list(group)] - [x, y]).max(axis=1) <= side / 2))

    assert inside("eyes", LEFT_EYE) == inside("eyes", RIGHT_EYE) == inside("mouth", LIPS) == 1
    assert inside("mouth", LEFT_EYE) == inside("hair", NOSE) == inside("hair", LIPS) == 0
    _, y, _ = PARTS["hair"](pixels)
    assert y < pixels[:, 1].min()  # its middle lies above the face


def test_cuts_stay_in_the_picture() -> None:
    picture = np.arange(64, dtype=np.uint8)[:, None, None] + np.zeros((64, 64, 3), np.uint8)
    assert cut(picture, (32.0, 32.0, 16.0))[:, 0, 0].tolist() == list(range(24, 40))
    assert cut(picture, (60.0, -5.0, 16.0))[:, 0, 0].tolist() == list(range(16))
    assert cut(picture, (32.0, 32.0, 500.0)).shape == picture.shape


def test_the_avatar_stands_beside_the_truth(dataset: AvatarDataset) -> None:
    def darker(index: int) -> tuple[np.ndarray, np.ndarray]:
        truth = held_out_truth(dataset, index)
        return truth // 2, np.zeros((SIDE, SIDE), np.uint8)

    sheet = decode_jpeg(closeups_sheet(dataset, darker, [4, 5]))
    assert sheet.shape == (2 * 192, 6 * 192, 3)
    for column in range(0, 6, 2):
        output, truth = (sheet[20:170, c * 192 + 20 : c * 192 + 170] for c in (column, column + 1))
        assert np.abs(2.0 * output - truth).mean() < 6
