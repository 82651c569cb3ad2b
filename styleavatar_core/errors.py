# SPDX-License-Identifier: Apache-2.0
"""Every error that our code raises on purpose.

* StyleAvatarError
  * InvalidInputError        what the caller sent cannot be used
    x FaceNotFoundError      no face where one is needed
  * NotFoundError            no such avatar, job or file
  * AuthenticationError      the caller has not shown that it may call
  * ConflictError            not possible in the present state
  * AssetError               a model file or bundle is missing, damaged or of another version
  * EngineError              rendering failed
    x EngineUnavailableError the runtime or the device is not there
    x RenderError            this frame failed; the worker lives
    x WorkerLostError        the worker died; another attempt may succeed
  * OverloadedError          no capacity now; carries ``retry_delay_s``
  * TrainingError            training cannot go on
* TrainingCanceled           a stop that no ``except Exception`` swallows

Services turn a type into a gRPC status and an HTTP answer in one place
(``services.common.errors``).
"""

from __future__ import annotations

from typing import ClassVar


class StyleAvatarError(Exception):
    """Base of all errors raised on purpose.

    Attributes:
        reason: Stable UPPER_SNAKE word for programs; the message is for people.
    """

    default_reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason or self.default_reason


class InvalidInputError(StyleAvatarError):
    """What the caller sent cannot be used: shape, range, format, size."""

    default_reason = "INVALID_INPUT"


class FaceNotFoundError(InvalidInputError):
    """No face where one is needed."""

    default_reason = "FACE_NOT_FOUND"


class NotFoundError(StyleAvatarError):
    """No such avatar, job or file."""

    default_reason = "NOT_FOUND"


class AuthenticationError(StyleAvatarError):
    """The caller has not shown that it may call."""

    default_reason = "UNAUTHENTICATED"


class ConflictError(StyleAvatarError):
    """Not possible in the present state: a finished job, an avatar in use."""

    default_reason = "CONFLICT"


class AssetError(StyleAvatarError):
    """A model file or bundle is missing, damaged or of another version."""

    default_reason = "ASSET_UNUSABLE"


class EngineError(StyleAvatarError):
    """Rendering failed."""

    default_reason = "ENGINE_FAILED"


class EngineUnavailableError(EngineError):
    """The runtime or the device is not there."""

    default_reason = "ENGINE_UNAVAILABLE"


class RenderError(EngineError):
    """This frame failed; the worker lives."""

    default_reason = "RENDER_FAILED"


class WorkerLostError(EngineError):
    """The worker died; another attempt may succeed."""

    default_reason = "WORKER_LOST"


class OverloadedError(StyleAvatarError):
    """No capacity now.

    Attributes:
        retry_delay_s: When another attempt makes sense, in seconds.
    """

    default_reason = "OVERLOADED"

    def __init__(
        self, message: str, *, retry_delay_s: float = 1.0, reason: str | None = None
    ) -> None:
        super().__init__(message, reason=reason)
        self.retry_delay_s = retry_delay_s


class TrainingError(StyleAvatarError):
    """Training cannot go on."""

    default_reason = "TRAINING_FAILED"


class TrainingCanceled(BaseException):
    """Someone asked for training to stop; not an error, so ``except Exception`` lets it pass."""
