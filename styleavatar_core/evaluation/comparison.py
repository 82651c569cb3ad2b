# SPDX-License-Identifier: Apache-2.0
"""The same frames drawn by several methods, side by side (paper, Fig. 7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np

from styleavatar_core.data.picture import contact_sheet
from styleavatar_core.types import ByteArray

_HEADER_PX = 28
_INK = (40, 40, 40)


def comparison_sheet(
    columns: Mapping[str, Callable[[int], ByteArray]], frames: Sequence[int], cell_px: int = 224
) -> ByteArray:
    """Draws a grid with a column for each method and a row for each frame.

    Args:
        columns: Gives the (S, S, 3) uint8 picture of a frame, by the name that heads the column.
        frames: The frames.
        cell_px: Side that each picture is scaled to.

    Returns:
        (28 + frames * cell, columns * cell, 3) uint8 RGB.
    """
    rows = [[picture(index) for picture in columns.values()] for index in frames]
    header = np.full((_HEADER_PX, len(columns) * cell_px, 3), 255, np.uint8)
    font = cv2.FONT_HERSHEY_SIMPLEX
    for place, name in enumerate(columns):
        corner = (place * cell_px + 4, _HEADER_PX - 9)
        cv2.putText(header, name.replace("_", " "), corner, font, 0.5, _INK, 1, cv2.LINE_AA)
    return np.concatenate([header, contact_sheet(rows, cell_px)])
