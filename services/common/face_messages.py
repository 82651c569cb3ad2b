# SPDX-License-Identifier: Apache-2.0
"""Between the messages of ``styleavatar.v1`` and the values of ``styleavatar_core.types``."""

from __future__ import annotations

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

_EXPRESSION_COUNT_MAX = 1024
# Far beyond any face in any frame; keeps arithmetic on hostile numbers finite.
_MAGNITUDE_MAX = 1e4


def duration_from_seconds(seconds: float) -> Duration:
    """Returns a Duration, to the nanosecond."""
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def seconds_from_duration(duration: Duration) -> float:
    """Returns the seconds of a Duration."""
    return duration.seconds + duration.nanos * 1e-9


def parameters_from_message(message: face_pb2.FaceParameters) -> FaceParameters:
    """Reads face parameters and refuses what is no face.

    Raises:
        InvalidInputError: When a number is not finite, absurd, or missing.
    """
    eyes = (message.left_eye_rotation, message.right_eye_rotation)
    rotation = message.rotation
    quaternion = np.array([rotation.w, rotation.x, rotation.y, rotation.z], np.float32)
    translation = message.translation
    parameters = FaceParameters(
        model_id=message.model_id,
        rotation=quaternion,
        translation=np.array([translation.x, translation.y, translation.z], np.float32),
        scale=message.scale,
        expression=np.array(message.expression, np.float32),
        eye_rotation=np.array([[eye.pitch_rad, eye.yaw_rad] for eye in eyes], np.float32),
        confidence=message.confidence,
        capture_time_s=seconds_from_duration(message.capture_offset),
        frame_index=message.frame_index,
    )
    _check(parameters)
    quaternion /= np.linalg.norm(quaternion)
    return parameters


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
    )


def identity_from_message(message: face_pb2.FaceIdentity) -> FaceIdentity:
    """Reads a face identity.

    Raises:
        InvalidInputError: When a coefficient is not finite.
    """
    identity = np.array(message.identity, np.float32)
    texture = np.array(message.texture, np.float32)
    if not (np.isfinite(identity).all() and np.isfinite(texture).all()):
        raise InvalidInputError("A face identity has a coefficient that is not a finite number.")
    return FaceIdentity(message.model_id, identity, texture)


def identity_to_message(identity: FaceIdentity) -> face_pb2.FaceIdentity:
    """Writes a face identity."""
    return face_pb2.FaceIdentity(
        model_id=identity.model_id,
        identity=identity.identity.tolist(),
        texture=identity.texture.tolist(),
    )


def _check(parameters: FaceParameters) -> None:
    named = {
        "rotation": parameters.rotation,
        "translation": parameters.translation,
        "scale": np.array([parameters.scale], np.float32),
        "expression": parameters.expression,
        "eye_rotation": parameters.eye_rotation,
        "confidence": np.array([parameters.confidence], np.float32),
    }
    where = f"frame {parameters.frame_index}"
    everything = np.concatenate([value.ravel() for value in named.values()])
    all_usable = np.abs(everything).max() <= _MAGNITUDE_MAX  # also catches NaN
    for name, value in named.items() if not all_usable else ():
        if not np.all(np.abs(value) <= _MAGNITUDE_MAX):
            raise InvalidInputError(
                f"The {name} of {where} is not finite or far too large.", reason="BAD_PARAMETERS"
            )
    if parameters.scale <= 0:
        raise InvalidInputError(
            f"The scale of {where} must be positive, got {parameters.scale:g}.",
            reason="BAD_PARAMETERS",
        )
    if np.linalg.norm(parameters.rotation) < 1e-3:
        raise InvalidInputError(
            f"The rotation of {where} is no quaternion: it has no length.", reason="BAD_PARAMETERS"
        )
    if not 0 < parameters.expression.size <= _EXPRESSION_COUNT_MAX:
        raise InvalidInputError(
            f"{where.capitalize()} has {parameters.expression.size} expression coefficients.",
            reason="BAD_PARAMETERS",
        )
