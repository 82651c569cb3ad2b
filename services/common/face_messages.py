# SPDX-License-Identifier: Apache-2.0
"""Between the messages of ``styleavatar.v1`` and the values of ``styleavatar_core.types``."""

from __future__ import annotations

import math

import numpy as np
from google.protobuf.duration_pb2 import Duration
from styleavatar.v1 import face_pb2, image_pb2

from services.common.image_codec import ImageFormatName
from styleavatar_core.errors import InvalidInputError
from styleavatar_core.types import FaceIdentity, FaceParameters

IMAGE_FORMAT_NAMES: dict[int, ImageFormatName] = {
    image_pb2.IMAGE_FORMAT_JPEG: "jpeg",
    image_pb2.IMAGE_FORMAT_PNG: "png",
    image_pb2.IMAGE_FORMAT_RAW_RGB: "raw_rgb",
}

_COEFFICIENT_COUNT_MAX = 1024
# Far beyond any face in any frame; keeps arithmetic on hostile numbers finite.
_MAGNITUDE_MAX = 1e4
_LENGTH_MIN = 1e-3
_DURATION_S_MAX = 315_576_000_000  # 10,000 years, says protobuf
# Where the numbers of a face lie when they are one array: checked together, before every frame.
_PARTS = {
    "rotation": slice(0, 4),
    "translation": slice(4, 7),
    "eye_rotation": slice(7, 11),
    "scale": slice(11, 12),
    "confidence": slice(12, 13),
    "expression": slice(13, None),
}


def duration_from_seconds(seconds: float) -> Duration:
    """Returns a Duration, to the nanosecond."""
    duration = Duration()
    set_duration(duration, seconds)
    return duration


def set_duration(duration: Duration, seconds: float) -> None:
    """Writes seconds, to the nanosecond, into a Duration that is part of a message."""
    duration.FromNanoseconds(round(seconds * 1e9))


def seconds_from_duration(duration: Duration) -> float:
    """Returns the seconds of a Duration.

    Raises:
        InvalidInputError: When they are more than a Duration may have.
    """
    if abs(duration.seconds) > _DURATION_S_MAX:
        raise _bad(f"A duration of {duration.seconds} s is absurd.")
    return duration.seconds + duration.nanos * 1e-9


def parameters_from_message(message: face_pb2.FaceParameters) -> FaceParameters:
    """Reads face parameters and refuses what is no face.

    Raises:
        InvalidInputError: When a number is not finite, absurd, or missing.
    """
    where = f"frame {message.frame_index}"
    count = len(message.expression)
    if not 0 < count <= _COEFFICIENT_COUNT_MAX:  # before it is copied: there may be millions
        raise _bad(f"{where.capitalize()} has {count} expression coefficients.")
    rotation, translation = message.rotation, message.translation
    left, right = message.left_eye_rotation, message.right_eye_rotation
    values = [
        *(rotation.w, rotation.x, rotation.y, rotation.z),
        *(translation.x, translation.y, translation.z),
        *(left.pitch_rad, left.yaw_rad, right.pitch_rad, right.yaw_rad),
        *(message.scale, message.confidence),
        *message.expression,
    ]
    numbers = np.array(values, np.float32)
    is_small = sum(map(abs, values)) <= _MAGNITUDE_MAX  # then so is each; false for NaN
    for name, part in () if is_small else _PARTS.items():
        if not np.all(np.abs(numbers[part]) <= _MAGNITUDE_MAX):  # also catches NaN
            raise _bad(f"The {name} of {where} is not finite or far too large.")
    if message.scale <= 0:
        raise _bad(f"The scale of {where} must be positive, got {message.scale:g}.")
    length = math.hypot(rotation.w, rotation.x, rotation.y, rotation.z)
    if length < _LENGTH_MIN:
        raise _bad(f"The rotation of {where} is no quaternion: it has no length.")
    return FaceParameters(
        model_id=message.model_id,
        rotation=numbers[_PARTS["rotation"]] / np.float32(length),
        translation=numbers[_PARTS["translation"]],
        scale=message.scale,
        expression=numbers[_PARTS["expression"]],
        eye_rotation=numbers[_PARTS["eye_rotation"]].reshape(2, 2),
        confidence=message.confidence,
        capture_time_s=seconds_from_duration(message.capture_offset),
        frame_index=message.frame_index,
        person_index=message.person_index,
    )


def parameters_to_message(parameters: FaceParameters) -> face_pb2.FaceParameters:
    """Writes face parameters."""
    left, right = (
        face_pb2.EyeRotation(pitch_rad=pitch, yaw_rad=yaw)
        for pitch, yaw in parameters.eye_rotation.tolist()
    )
    w, x, y, z = parameters.rotation.tolist()
    tx, ty, tz = parameters.translation.tolist()
    return face_pb2.FaceParameters(
        frame_index=parameters.frame_index,
        capture_offset=duration_from_seconds(parameters.capture_time_s),
        model_id=parameters.model_id,
        rotation=face_pb2.Quaternion(w=w, x=x, y=y, z=z),
        translation=face_pb2.Vector3(x=tx, y=ty, z=tz),
        scale=parameters.scale,
        expression=parameters.expression.tolist(),
        left_eye_rotation=left,
        right_eye_rotation=right,
        confidence=parameters.confidence,
        person_index=parameters.person_index,
    )


def identity_from_message(message: face_pb2.FaceIdentity) -> FaceIdentity:
    """Reads a face identity.

    Raises:
        InvalidInputError: When a coefficient is not finite, or there are too many.
    """
    for name, values in (("shape", message.identity), ("texture", message.texture)):
        if len(values) > _COEFFICIENT_COUNT_MAX:  # before they are copied: there may be millions
            raise _bad(
                f"A face identity has {len(values)} {name} coefficients; face models have at most"
                f" {_COEFFICIENT_COUNT_MAX}."
            )
    identity = np.array(message.identity, np.float32)
    texture = np.array(message.texture, np.float32)
    if not (np.isfinite(identity).all() and np.isfinite(texture).all()):
        raise _bad("A face identity has a coefficient that is not a finite number.")
    return FaceIdentity(message.model_id, identity, texture)


def identity_to_message(identity: FaceIdentity) -> face_pb2.FaceIdentity:
    """Writes a face identity."""
    return face_pb2.FaceIdentity(
        model_id=identity.model_id,
        identity=identity.identity.tolist(),
        texture=identity.texture.tolist(),
    )


def _bad(message: str) -> InvalidInputError:
    return InvalidInputError(message, reason="BAD_PARAMETERS")
