# SPDX-License-Identifier: Apache-2.0
"""Pictures in and out of bytes. Images are (H, W, 3) uint8 RGB."""

from __future__ import annotations

import contextlib
import io
from typing import Literal

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from styleavatar_core.errors import InvalidInputError
from styleavatar_core.types import ByteArray

ImageFormatName = Literal["jpeg", "png", "raw_rgb"]

SIDE_PX_MIN = 16
SIDE_PX_MAX = 4096
DEFAULT_JPEG_QUALITY = 90

_ORIENTATION = ExifTags.Base.Orientation
_EXIF, _EXIF_WITHIN_BYTES = b"Exif\0\0", 4096  # it stands among the first segments


def encode_image(
    image: ByteArray,
    image_format: ImageFormatName,
    jpeg_quality: int = DEFAULT_JPEG_QUALITY,
) -> bytes:
    """Stores an image.

    Args:
        image: (H, W, 3) uint8 RGB.
        image_format: How to store it.
        jpeg_quality: 1 to 100, for JPEG.

    Returns:
        The bytes.
    """
    image = np.ascontiguousarray(image)
    if image_format == "jpeg":
        return simplejpeg.encode_jpeg(image, jpeg_quality, "RGB", "420")
    if image_format == "raw_rgb":
        return image.tobytes()
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def decode_image(
    data: bytes | memoryview, image_format: ImageFormatName, width_px: int = 0, height_px: int = 0
) -> ByteArray:
    """Reads an image, checking its size before any pixel is decoded.

    Args:
        data: The bytes.
        image_format: How they are stored.
        width_px: Declared width as shown; needed for raw images, otherwise 0 or the true one.
        height_px: Declared height, likewise.

    Returns:
        (H, W, 3) uint8 RGB; for raw images a read-only view of ``data``.

    Raises:
        InvalidInputError: When the bytes are no such image or have another size than declared.
    """
    if image_format == "raw_rgb":
        check_size(width_px, height_px)
        expected = width_px * height_px * 3
        if len(data) != expected:
            raise InvalidInputError(
                f"A raw RGB frame of {width_px}x{height_px} has {expected} bytes, got {len(data)}.",
                reason="WRONG_IMAGE_SIZE",
            )
        return np.frombuffer(data, np.uint8).reshape(height_px, width_px, 3)
    image = _decode_jpeg(data) if image_format == "jpeg" else _decode_png(data)
    height, width = image.shape[:2]
    if (width_px and width_px != width) or (height_px and height_px != height):
        raise InvalidInputError(
            f"The frame was declared as {width_px}x{height_px} but is {width}x{height}.",
            reason="WRONG_IMAGE_SIZE",
        )
    return image


def resize_square(image: ByteArray, side_px: int) -> ByteArray:
    """Resizes a square image; returns it unchanged when it has that side already."""
    if image.shape[0] == side_px:
        return image
    resized = Image.fromarray(image).resize((side_px, side_px), Image.Resampling.LANCZOS)
    return np.asarray(resized)


def check_size(width_px: int, height_px: int) -> None:
    """Refuses frames that are too small or too large to be used.

    Raises:
        InvalidInputError: A side is out of its range.
    """
    if not (SIDE_PX_MIN <= width_px <= SIDE_PX_MAX and SIDE_PX_MIN <= height_px <= SIDE_PX_MAX):
        raise InvalidInputError(
            f"A frame of {width_px}x{height_px} pixels cannot be used: each side must have "
            f"{SIDE_PX_MIN} to {SIDE_PX_MAX}.",
            reason="WRONG_IMAGE_SIZE",
        )


def _decode_jpeg(data: bytes | memoryview) -> ByteArray:
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        check_size(width, height)
        return _upright(simplejpeg.decode_jpeg(data, colorspace="RGB"), data)
    except ValueError as error:
        raise InvalidInputError(
            "The frame is not a readable JPEG image.", reason="UNREADABLE_IMAGE"
        ) from error


def _upright(image: ByteArray, data: bytes | memoryview) -> ByteArray:
    """Turns a photograph as its camera says that it was held (EXIF)."""
    if _EXIF not in bytes(data[:_EXIF_WITHIN_BYTES]):
        return image
    picture = Image.fromarray(image)
    with contextlib.suppress(Exception):  # a camera's note that cannot be read turns nothing
        picture.getexif()[_ORIENTATION] = Image.open(io.BytesIO(data)).getexif()[_ORIENTATION]
        return np.asarray(ImageOps.exif_transpose(picture))
    return image


def _decode_png(data: bytes | memoryview) -> ByteArray:
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            check_size(*picture.size)
            return np.asarray(picture.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise InvalidInputError(
            f"The frame is larger than {SIDE_PX_MAX} pixels.", reason="WRONG_IMAGE_SIZE"
        ) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InvalidInputError(
            "The frame is not a readable PNG image.", reason="UNREADABLE_IMAGE"
        ) from error
