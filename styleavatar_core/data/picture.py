# SPDX-License-Identifier: Apache-2.0
"""Still pictures: JPEG in and out, and contact sheets."""

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
    scale = side / max(picture.shape[:2])
    height, width = (max(1, round(scale * length)) for length in picture.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled = cv2.resize(picture, (width, height), interpolation=method)
    if scaled.ndim == 2:
        scaled = scaled[..., None]
    top, left = (side - height) // 2, (side - width) // 2
    cell = np.full((cell_px, cell_px, 3), 255, np.uint8)
    cell[:side, :side] = 0
    cell[top : top + height, left : left + width] = scaled
    return cell
