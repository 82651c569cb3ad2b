# SPDX-License-Identifier: Apache-2.0
"""The messages of the rendering service: what is granted, what is answered."""

from __future__ import annotations

from collections.abc import Mapping

from styleavatar.v1 import image_pb2, rendering_service_pb2

from services.common.face_messages import (
    IMAGE_FORMAT_NAMES,
    duration_from_seconds,
    identity_to_message,
)
from services.rendering.catalog import AvatarEntry
from styleavatar_core.errors import InvalidInputError

DEFAULT_JPEG_QUALITY = 90
IMAGE_SIDE_PX_MIN = 16
IMAGE_SIDE_PX_MAX = 2048

_FORMATS = {image_pb2.IMAGE_FORMAT_UNSPECIFIED: image_pb2.IMAGE_FORMAT_JPEG}
_FRAME_MODES = {image_pb2.FRAME_MODE_UNSPECIFIED: image_pb2.FRAME_MODE_LATEST_FRAME}
_DRIVERS = {
    rendering_service_pb2.DRIVER_UNSPECIFIED: rendering_service_pb2.DRIVER_OTHER_PERSON,
}


def grant_config(
    asked: rendering_service_pb2.RenderConfig, entry: AvatarEntry
) -> rendering_service_pb2.RenderConfig:
    """Fills in defaults and refuses what cannot be granted.

    Args:
        asked: The caller's config.
        entry: The avatar that it names.

    Returns:
        What is granted; every field is set.

    Raises:
        InvalidInputError: When a value is out of range.
    """
    granted = rendering_service_pb2.RenderConfig(
        avatar_id=entry.avatar_id,
        image_format=_FORMATS.get(asked.image_format, asked.image_format),
        jpeg_quality=asked.jpeg_quality or DEFAULT_JPEG_QUALITY,
        image_size_px=asked.image_size_px or entry.manifest.image_size_px,
        frame_mode=_FRAME_MODES.get(asked.frame_mode, asked.frame_mode),
        driver=_DRIVERS.get(asked.driver, asked.driver),
    )
    if granted.image_format not in IMAGE_FORMAT_NAMES:
        raise InvalidInputError(f"There is no image format {granted.image_format}.")
    if granted.frame_mode not in image_pb2.FrameMode.values():
        raise InvalidInputError(f"There is no frame mode {granted.frame_mode}.")
    if granted.driver not in rendering_service_pb2.Driver.values():
        raise InvalidInputError(f"There is no driver {granted.driver}.")
    if not 1 <= granted.jpeg_quality <= 100:
        raise InvalidInputError(f"jpeg_quality must be 1 to 100, got {granted.jpeg_quality}.")
    if not IMAGE_SIDE_PX_MIN <= granted.image_size_px <= IMAGE_SIDE_PX_MAX:
        raise InvalidInputError(
            f"image_size_px must be {IMAGE_SIDE_PX_MIN} to {IMAGE_SIDE_PX_MAX}, "
            f"got {granted.image_size_px}."
        )
    return granted


def avatar_to_message(entry: AvatarEntry, loaded: bool) -> rendering_service_pb2.Avatar:
    """Describes an avatar."""
    return rendering_service_pb2.Avatar(
        avatar_id=entry.avatar_id,
        preset=entry.manifest.preset,
        image_size_px=entry.manifest.image_size_px,
        loaded=loaded,
        face_identity=identity_to_message(entry.manifest.face_identity),
    )


def stage_durations(stages_s: Mapping[str, float]) -> rendering_service_pb2.StageDurations:
    """Writes the times of stages; the names are the fields of the message."""
    return rendering_service_pb2.StageDurations(
        **{name: duration_from_seconds(seconds) for name, seconds in stages_s.items()}
    )
