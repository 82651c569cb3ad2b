# SPDX-License-Identifier: Apache-2.0
"""The messages of the rendering service: what is granted, what is answered."""

from __future__ import annotations

from dataclasses import asdict

from google.protobuf.duration_pb2 import Duration
from styleavatar.v1 import image_pb2, rendering_service_pb2

from services.common.face_messages import (
    duration_from_seconds,
    identity_to_message,
    seconds_from_duration,
)
from services.common.image_codec import DEFAULT_JPEG_QUALITY
from services.rendering.catalog import AvatarEntry
from styleavatar_core.avatar.driver_gains import DriverGains
from styleavatar_core.errors import InvalidInputError

DEFAULT_FRAME_DEADLINE_S = 1.0
FRAME_DEADLINE_S_MAX = 60.0
FRAMES_PER_SECOND_MAX = 120
BITS_PER_SECOND_MAX = 50_000_000
# 256 pixels at 30 frames per second: 1 Mbit/s.
BITS_PER_PIXEL = 0.5
IMAGE_SIDE_PX_MIN = 16
IMAGE_SIDE_PX_MAX = 2048

# What an enum value of 0, "not stated", grants.
_DEFAULTS = {
    "image_format": image_pb2.IMAGE_FORMAT_JPEG,
    "frame_mode": image_pb2.FRAME_MODE_LATEST_FRAME,
    "driver": rendering_service_pb2.DRIVER_OTHER_PERSON,
    "background": rendering_service_pb2.BACKGROUND_ORIGINAL,
}


def grant_config(
    asked: rendering_service_pb2.RenderConfig, entry: AvatarEntry, frames_per_second: int = 30
) -> rendering_service_pb2.RenderConfig:
    """Fills in defaults and refuses what cannot be granted.

    Args:
        asked: The caller's config.
        entry: The avatar that it names.
        frames_per_second: Rate of a stream that does not say its own.

    Returns:
        What is granted; every field is set but the data of a background picture.

    Raises:
        InvalidInputError: When a value is out of range.
    """
    granted = rendering_service_pb2.RenderConfig(
        avatar_id=entry.avatar_id,
        jpeg_quality=asked.jpeg_quality or DEFAULT_JPEG_QUALITY,
        image_size_px=asked.image_size_px or entry.manifest.image_size_px,
        frames_per_second=grant_rate(asked, frames_per_second),
        frame_deadline=_grant_deadline(asked),
        crop=_grant_crop(asked.crop),
        visible_label=asked.visible_label,
        gains=rendering_service_pb2.DriverGains(**asdict(gains_from_message(asked.gains))),
    )
    for name in _DEFAULTS:
        setattr(granted, name, _grant_choice(asked, name))
    granted.live = asked.live or granted.frame_mode == image_pb2.FRAME_MODE_LATEST_FRAME
    _require("jpeg_quality", granted.jpeg_quality, 1, 100)
    _require("image_size_px", granted.image_size_px, IMAGE_SIDE_PX_MIN, IMAGE_SIDE_PX_MAX)
    if granted.image_format == image_pb2.IMAGE_FORMAT_H264:
        pixels_per_second = granted.image_size_px**2 * granted.frames_per_second
        suitable = min(BITS_PER_SECOND_MAX, round(BITS_PER_PIXEL * pixels_per_second))
        granted.bits_per_second = asked.bits_per_second or suitable
        _require("bits_per_second", granted.bits_per_second, 1000, BITS_PER_SECOND_MAX)
        if granted.image_size_px % 2:
            raise InvalidInputError(
                f"H.264 needs an even image_size_px, got {granted.image_size_px}."
            )
    if granted.background == rendering_service_pb2.BACKGROUND_IMAGE:
        picture = asked.background_image
        granted.background_image.MergeFrom(
            image_pb2.Image(
                format=picture.format, width_px=picture.width_px, height_px=picture.height_px
            )
        )
    is_transparent = granted.background == rendering_service_pb2.BACKGROUND_TRANSPARENT
    if is_transparent and granted.image_format != image_pb2.IMAGE_FORMAT_PNG:
        raise InvalidInputError("A transparent background needs the image format PNG.")
    return granted


def grant_rate(asked: rendering_service_pb2.RenderConfig, frames_per_second: int) -> int:
    """Returns the frames per second that are set aside; ``frames_per_second`` if none are said.

    Raises:
        InvalidInputError: When they are out of range.
    """
    rate = asked.frames_per_second or frames_per_second
    _require("frames_per_second", rate, 1, FRAMES_PER_SECOND_MAX)
    return rate


def gains_from_message(message: rendering_service_pb2.DriverGains) -> DriverGains:
    """Reads gains; those not given are 1.

    Raises:
        InvalidInputError: When one is out of range.
    """
    return DriverGains(**{field.name: value for field, value in message.ListFields()})


def _grant_choice(asked: rendering_service_pb2.RenderConfig, name: str) -> int:
    value = getattr(asked, name) or _DEFAULTS[name]
    if value not in asked.DESCRIPTOR.fields_by_name[name].enum_type.values_by_number:
        raise InvalidInputError(f"There is no {name.replace('_', ' ')} {value}.")
    return int(value)


def _grant_deadline(asked: rendering_service_pb2.RenderConfig) -> Duration:
    if not asked.HasField("frame_deadline"):
        return duration_from_seconds(DEFAULT_FRAME_DEADLINE_S)
    deadline_s = seconds_from_duration(asked.frame_deadline)
    if not 0 < deadline_s <= FRAME_DEADLINE_S_MAX:
        raise InvalidInputError(
            f"frame_deadline must be more than 0 and at most {FRAME_DEADLINE_S_MAX:g} s, "
            f"got {deadline_s:g} s."
        )
    return asked.frame_deadline


def _grant_crop(asked: rendering_service_pb2.Region) -> rendering_service_pb2.Region:
    if asked.side == 0 and asked.left == 0 and asked.top == 0:
        return rendering_service_pb2.Region(side=1.0)
    # Written so that a NaN is refused too.
    inside = 0 <= asked.left <= 1 and 0 <= asked.top <= 1 and 0 < asked.side <= 1
    if not (inside and max(asked.left, asked.top) + asked.side <= 1.0001):
        raise InvalidInputError(
            "crop must lie inside the picture: left and top from 0, side above 0, none beyond 1; "
            f"got left {asked.left:g}, top {asked.top:g}, side {asked.side:g}."
        )
    return asked


def _require(name: str, value: int, lowest: int, highest: int) -> None:
    if not lowest <= value <= highest:
        raise InvalidInputError(f"{name} must be {lowest} to {highest}, got {value}.")


def avatar_to_message(entry: AvatarEntry, loaded: bool) -> rendering_service_pb2.Avatar:
    """Describes an avatar."""
    return rendering_service_pb2.Avatar(
        avatar_id=entry.avatar_id,
        preset=entry.manifest.preset,
        image_size_px=entry.manifest.image_size_px,
        loaded=loaded,
        face_identity=identity_to_message(entry.manifest.face_identity),
    )
