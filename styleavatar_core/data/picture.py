# SPDX-License-Identifier: Apache-2.0
"""Still pictures: JPEG in and out, fitted to a size, and contact sheets."""

from __future__ import annotations

import io
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from styleavatar_core.errors import InvalidInputError
from styleavatar_core.types import ByteArray

SYNTHETIC_NOTE = "Synthetic: made by StyleAvatar"

_GAP_PX = 2


def encode_jpeg(image: ByteArray, quality: int = 92) -> bytes:
    """Encodes an (H, W, 3) uint8 RGB picture with an avatar in it, as its comment says."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, comment=SYNTHETIC_NOTE)
    return buffer.getvalue()


def encode_png(image: ByteArray) -> bytes:
    """Encodes an (H, W, 3) uint8 RGB picture without loss."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def decode_jpeg(data: bytes) -> ByteArray:
    """Decodes a picture to (H, W, 3) uint8 RGB.

    Raises:
        InvalidInputError: The bytes are no picture.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise InvalidInputError("the bytes are not a picture that can be decoded") from error


def fitted(image: ByteArray, height: int, width: int) -> ByteArray:
    """Scales an (H, W, 3) uint8 picture as a whole until it fits a size; the rest is black.

    Nothing is stretched: a face keeps its shape.
    """
    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return image
    share = min(height / rows, width / columns)
    inner_height, inner_width = max(round(share * rows), 1), max(round(share * columns), 1)
    way = cv2.INTER_AREA if share < 1 else cv2.INTER_CUBIC
    view = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    view[top : top + inner_height, left : left + inner_width] = cv2.resize(
        image, (inner_width, inner_height), interpolation=way
    )
    return view


def contact_sheet(rows: Sequence[Sequence[np.ndarray]], cell_px: int) -> ByteArray:
    """Puts pictures into a grid.

    Args:
        rows: Rows of equal length of (H, W, 3) or (H, W) uint8 pictures.
        cell_px: Side that each picture is scaled to fit in; what is not square has black bars.

    Returns:
        (rows * cell, columns * cell, 3) uint8 RGB, with thin gaps.
    """
    lines = [np.concatenate([_cell(picture, cell_px) for picture in row], axis=1) for row in rows]
    return np.concatenate(lines, axis=0)


def _cell(picture: np.ndarray, cell_px: int) -> ByteArray:
    side = cell_px - _GAP_PX
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=2)
    cell = np.full((cell_px, cell_px, 3), 255, np.uint8)
    cell[:side, :side] = fitted(picture, side, side)
    return cell
