# SPDX-License-Identifier: Apache-2.0
"""Pictures survive their formats, and sizes are checked before anything else."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from services.common.image_codec import decode_image, encode_image, resize_square
from styleavatar_core.errors import InvalidInputError


def gradient() -> np.ndarray:
    ramp = np.linspace(0, 255, 40, dtype=np.uint8)
    return np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], np.uint8(200)), axis=-1)


@pytest.mark.parametrize("name", ["png", "raw_rgb"])
def test_lossless_formats_keep_every_pixel(name: str) -> None:
    assert np.array_equal(decode_image(encode_image(gradient(), name), name, 40, 40), gradient())


def test_jpeg_keeps_colors_and_order_of_channels() -> None:
    decoded = decode_image(encode_image(gradient(), "jpeg", 95), "jpeg")
    error = np.abs(decoded.astype(int) - gradient()).mean()
    assert error < 3.0  # 4:2:0 at quality 95; swapped channels would give tens


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_shown_as_its_camera_was_held(orientation: int) -> None:
    photo = Image.new("RGB", (40, 24), "black")
    photo.paste("white", (0, 0, 20, 12))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(buffer.getvalue())))
    width, height = upright.size
    shown = decode_image(buffer.getvalue(), "jpeg", width, height)
    assert np.abs(shown.astype(int) - np.asarray(upright)).max() < 8
    spoiled = buffer.getvalue().replace(b"II*\0", b"XX*\0").replace(b"MM\0*", b"XX\0*")
    assert decode_image(spoiled, "jpeg").shape == (24, 40, 3)


def test_a_lower_quality_is_smaller() -> None:
    assert len(encode_image(gradient(), "jpeg", 20)) < len(encode_image(gradient(), "jpeg", 95))


def png_header(width_px: int, height_px: int) -> bytes:
    """What says how large a picture is, without the picture."""
    size = struct.pack(">II", width_px, height_px) + bytes([8, 2, 0, 0, 0])
    chunks = ((b"IHDR", size), (b"IDAT", b""), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


@pytest.mark.parametrize(
    ("data", "name", "size", "reason"),
    [
        (bytes(100), "raw_rgb", (40, 40), "WRONG_IMAGE_SIZE"),
        (b"", "raw_rgb", (0, 0), "WRONG_IMAGE_SIZE"),
        (b"", "raw_rgb", (1 << 20, 1 << 20), "WRONG_IMAGE_SIZE"),
        (b"nonsense", "jpeg", (0, 0), "UNREADABLE_IMAGE"),
        (b"", "jpeg", (0, 0), "UNREADABLE_IMAGE"),
        (b"nonsense", "png", (0, 0), "UNREADABLE_IMAGE"),
        (encode_image(gradient(), "jpeg")[:300], "jpeg", (0, 0), "UNREADABLE_IMAGE"),
        (encode_image(gradient(), "png")[:90], "png", (0, 0), "UNREADABLE_IMAGE"),
        (encode_image(gradient(), "jpeg"), "jpeg", (41, 40), "WRONG_IMAGE_SIZE"),
        (encode_image(gradient()[:8], "png"), "png", (0, 0), "WRONG_IMAGE_SIZE"),
        (png_header(20_000, 20_000), "png", (0, 0), "WRONG_IMAGE_SIZE"),
    ],
)
def test_unusable_bytes_are_refused(
    data: bytes, name: str, size: tuple[int, int], reason: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        decode_image(data, name, *size)
    assert caught.value.reason == reason


def test_resizing_keeps_the_mean() -> None:
    small = resize_square(gradient(), 20)
    assert small.shape == (20, 20, 3)
    assert np.allclose(small.mean((0, 1)), gradient().mean((0, 1)), atol=1.0)
    assert resize_square(small, 20) is small
