# SPDX-License-Identifier: Apache-2.0
"""From the picture and mask of a worker to what one stream's caller asked for."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from styleavatar.v1 import image_pb2, rendering_service_pb2

from services.common.face_messages import IMAGE_FORMAT_NAMES
from services.common.image_codec import decode_image, encode_image, resize_square
from services.rendering.h264 import H264Encoder
from services.rendering.label import make_label, put_label
from services.rendering.pool.frames import RenderedPicture
from styleavatar_core.errors import InvalidInputError
from styleavatar_core.types import ByteArray

GREEN_SCREEN_RGB = (0, 177, 64)
# Up to this side, JPEG and raw are stored in less time than handing them to a thread takes.
QUICK_SIDE_PX = 256
_QUICK_FORMATS = (image_pb2.IMAGE_FORMAT_JPEG, image_pb2.IMAGE_FORMAT_RAW_RGB)


class PictureWriter:
    """Composes, crops, resizes and stores the pictures of one stream, in order.

    Attributes:
        needs_mask: Whether the worker must give the mask with the picture.
    """

    def __init__(
        self, config: rendering_service_pb2.RenderConfig, background: ByteArray | None = None
    ) -> None:
        """Prepares for a granted config.

        Args:
            config: What was granted.
            background: (S, S, 3) uint8 RGB of the avatar's side, for ``BACKGROUND_IMAGE``.
        """
        # Fields of a message are objects anew each time that they are read.
        self.needs_mask = config.background != rendering_service_pb2.BACKGROUND_ORIGINAL
        self._is_transparent = config.background == rendering_service_pb2.BACKGROUND_TRANSPARENT
        self._format = config.image_format
        self._quality = config.jpeg_quality
        self._side_px = config.image_size_px
        self._crop = None if config.crop.side == 1.0 else config.crop
        self._background = background
        self._behind: Image.Image | None = None
        self._label = make_label(config.image_size_px) if config.visible_label else None
        self._encoder: H264Encoder | None = None
        if config.image_format == image_pb2.IMAGE_FORMAT_H264:
            self._encoder = H264Encoder(
                config.image_size_px, config.frames_per_second, config.bits_per_second
            )

    def is_quick(self, side_px: int) -> bool:
        """Says whether a picture of that side is written faster than a thread gets to it."""
        return self._format in _QUICK_FORMATS and max(side_px, self._side_px) <= QUICK_SIDE_PX

    def write(self, picture: RenderedPicture, image: image_pb2.Image) -> bool:
        """Stores a picture.

        Args:
            picture: From the worker.
            image: Is filled in.

        Returns:
            Whether it is a key frame of a video.
        """
        pixels = self._compose(picture)
        if self._crop is not None:
            pixels = _crop(pixels, self._crop)
        pixels = resize_square(pixels, self._side_px)
        if self._label is not None:
            pixels = put_label(pixels, self._label)
        is_key = False
        if self._encoder is not None:
            image.data, is_key = self._encoder.encode(pixels)
        elif pixels.shape[2] == 4:
            image.data = _encode_rgba(pixels)
        else:
            image.data = encode_image(pixels, IMAGE_FORMAT_NAMES[self._format], self._quality)
        image.format = self._format
        image.width_px = image.height_px = self._side_px
        return is_key

    def _compose(self, picture: RenderedPicture) -> ByteArray:
        """Returns (S, S, 3) pixels over their background, or (S, S, 4) with alpha."""
        if picture.mask is None:
            return picture.image
        if self._is_transparent:
            return np.dstack([picture.image, picture.mask])
        if self._behind is None:
            self._behind = self._make_background(picture.image.shape[0])
        person, mask = Image.fromarray(picture.image), Image.fromarray(picture.mask)
        return np.asarray(Image.composite(person, self._behind, mask))

    def _make_background(self, side_px: int) -> Image.Image:
        if self._background is None:
            return Image.new("RGB", (side_px, side_px), GREEN_SCREEN_RGB)
        return Image.fromarray(self._background)


def read_background(config: rendering_service_pb2.RenderConfig, side_px: int) -> ByteArray | None:
    """Decodes the background that a caller sent; a stream keeps it, so only as large as it shows.

    Args:
        config: As it was asked for.
        side_px: Side of the avatar's pictures.

    Returns:
        (S, S, 3) uint8 RGB, or None when none is wanted.

    Raises:
        InvalidInputError: When one is wanted and cannot be read.
    """
    if config.background != rendering_service_pb2.BACKGROUND_IMAGE:
        return None
    message = config.background_image
    name = IMAGE_FORMAT_NAMES.get(message.format)
    if name is None:
        raise InvalidInputError(
            "BACKGROUND_IMAGE needs a background_image stored as JPEG, PNG or raw RGB."
        )
    image = decode_image(message.data, name, message.width_px, message.height_px)
    return np.asarray(Image.fromarray(image).resize((side_px, side_px)))


def _crop(pixels: ByteArray, region: rendering_service_pb2.Region) -> ByteArray:
    """Cuts a square out; at least one pixel, never beyond the picture."""
    whole_px = pixels.shape[0]
    side_px = min(whole_px, max(1, round(region.side * whole_px)))
    left = min(round(region.left * whole_px), whole_px - side_px)
    top = min(round(region.top * whole_px), whole_px - side_px)
    return pixels[top : top + side_px, left : left + side_px]


def _encode_rgba(pixels: ByteArray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
