# SPDX-License-Identifier: Apache-2.0
"""The label by which those who watch see that a picture is synthetic: the letters AI."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from styleavatar_core.types import ByteArray

_HEIGHT_SHARE, _HEIGHT_PX_MIN = 0.1, 10  # of the picture's side; smaller, nobody could read it
_TEXT_SHARE = 0.9  # of the label's height
_INK, _GROUND = (255, 255, 255), (32, 32, 32)


def make_label(side_px: int) -> ByteArray:
    """Draws the label of pictures of one side.

    Args:
        side_px: Side of the square pictures.

    Returns:
        (H, W, 3) uint8 RGB, H and W less than the side.
    """
    height = max(_HEIGHT_PX_MIN, round(_HEIGHT_SHARE * side_px))
    width = round(1.5 * height)
    label = Image.new("RGB", (width, height), _GROUND)
    font = ImageFont.load_default(_TEXT_SHARE * height)
    center = (width / 2, height / 2)
    ImageDraw.Draw(label).text(center, "AI", _INK, font, anchor="mm")
    return np.asarray(label)


def put_label(pixels: ByteArray, label: ByteArray) -> ByteArray:
    """Returns a copy of a picture with the label in its upper right corner.

    Args:
        pixels: (S, S, 3) or, with alpha, (S, S, 4) uint8.
        label: From ``make_label`` for that side.
    """
    height, width = label.shape[:2]
    labelled = pixels.copy()
    labelled[:height, -width:, :3] = label
    labelled[:height, -width:, 3:] = 255  # nothing is seen through it
    return labelled
