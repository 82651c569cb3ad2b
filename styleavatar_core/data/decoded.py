# SPDX-License-Identifier: Apache-2.0
"""A decoded frame as a player shows it: sRGB, square pixels, upright."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type

from styleavatar_core.data.coding import BT709
from styleavatar_core.data.tone import HLG, PQ, to_screen
from styleavatar_core.types import ByteArray

if TYPE_CHECKING:
    import av

# Matrix coefficients as H.273 numbers them.
_UNTAGGED, _BT2020 = 2, 9
# Who does not say how colours were coded means BT.601 in small pictures and BT.709 in large ones.
_LARGE_HEIGHT_PX = 720
_PIXEL_ASPECT_LIMIT = 4.0  # no camera's pixels are longer; files that say so are wrong


def picture_of(frame: av.VideoFrame, pixel_aspect: float = 1.0) -> ByteArray:
    """Returns the colours of a decoded frame, whatever its depth, range and coding.

    Args:
        frame: As it was decoded.
        pixel_aspect: Width over height of its pixels.

    Returns:
        (H, W, 3) uint8 sRGB with square pixels, not yet turned.
    """
    is_high_range = frame.color_trc in (PQ, HLG)
    coding = None  # what the frame says
    if frame.colorspace == _UNTAGGED and frame.height >= _LARGE_HEIGHT_PX:
        coding = _BT2020 if is_high_range else BT709
    width = square_width(frame.width, pixel_aspect)
    layout = "rgb48le" if is_high_range else "rgb24"
    image: npt.NDArray[Any] = frame.to_ndarray(format=layout, width=width, src_colorspace=coding)
    return to_screen(image, int(frame.color_trc)) if is_high_range else image


def square_width(width: int, pixel_aspect: float) -> int:
    """Returns how wide a picture is, in square pixels; its height stays."""
    if not 1 / _PIXEL_ASPECT_LIMIT <= pixel_aspect <= _PIXEL_ASPECT_LIMIT:
        return width
    return round(width * pixel_aspect)


def upright(image: ByteArray, rotation_degrees: int, *, is_mirrored: bool) -> ByteArray:
    """Turns a decoded picture as its display matrix says.

    Args:
        image: (H, W, 3) of ``picture_of``.
        rotation_degrees: Counter-clockwise, as FFmpeg reads them off the matrix.
        is_mirrored: Whether the matrix mirrors, see ``mirrors``.
    """
    if is_mirrored:
        image, rotation_degrees = image[:, ::-1], rotation_degrees + 180
    quarter_turns = round(rotation_degrees / 90) % 4
    if not quarter_turns and not is_mirrored:
        return image
    return np.ascontiguousarray(np.rot90(image, quarter_turns))


def mirrors(frame: av.VideoFrame) -> bool:
    """Whether a frame is to be shown mirrored; keeps it in memory until garbage is collected."""
    try:
        notes: list[Any] = list(frame.side_data)  # PyAV's stub says names of them
    except ValueError:  # PyAV knows not all kinds of them that FFmpeg gives, as with spatial video
        return False
    for data in notes:
        if data.type == Type.DISPLAYMATRIX:
            a, b, _, c, d = np.frombuffer(data, "<i4").astype(float)[:5]
            return bool(a * d < b * c)
    return False
