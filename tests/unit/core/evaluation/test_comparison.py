# SPDX-License-Identifier: Apache-2.0
import numpy as np

from styleavatar_core.evaluation.comparison import comparison_sheet


def test_columns_are_methods_with_their_names_and_rows_are_frames() -> None:
    columns = {
        "truth": lambda index: np.full((16, 16, 3), 10 * index, np.uint8),
        "mean_frame": lambda index: np.full((16, 16, 3), 200, np.uint8),
    }
    sheet = comparison_sheet(columns, [1, 3, 5], cell_px=100)
    assert sheet.shape == (28 + 3 * 100, 2 * 100, 3)
    assert [sheet[28 + 100 * row + 50, 50, 0] for row in range(3)] == [10, 30, 50]
    assert (sheet[78:, 150, 0] == 200)[:40].all()
    for left in (0, 100):  # something is written above each column
        assert sheet[:28, left : left + 100].min() < 100
