# SPDX-License-Identifier: Apache-2.0
"""What an avatar shows when its driver's face is lost and found again. Numpy only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from styleavatar_core.types import FaceParameters, FloatArray

_HOLD_S, _FADE_S = 1 / 3, 2 / 3  # of a lost face
_RETURN_S = 0.3  # in which a face that was found again takes over
_RETURN_STEP_S = 0.1  # however slow a stream is, the way back has three frames


class Continuity:
    """Holds a lost face, fades it to rest, and leads back to one that is found again.

    Args:
        rest: What is shown when there is no face for long.
    """

    def __init__(self, rest: FaceParameters) -> None:
        self._rest = rest
        self._last: FaceParameters | None = None
        self._lost_s = 0.0
        self._shown: FaceParameters | None = None  # from which the way leads back
        self._returned_s = 0.0

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing of the driver is left in what is shown."""
        return self._last is None or self._lost_s >= _HOLD_S + _FADE_S

    def lost(self, step_s: float) -> FaceParameters:
        """Returns what to show in a frame without a face; its confidence is 0.

        Args:
            step_s: Time since the frame before.
        """
        if self._last is None:  # nobody has come yet; to whoever does the way leads from rest
            self._shown, self._returned_s = self._rest, 0.0
            return self._rest
        self._lost_s += step_s
        share = float(np.clip((self._lost_s - _HOLD_S) / _FADE_S, 0.0, 1.0))
        self._shown = replace(
            _between(self._last, self._rest, share),
            confidence=0.0,
            frame_index=self._last.frame_index,
            capture_time_s=self._last.capture_time_s,
        )
        self._returned_s = 0.0
        return self._shown

    def change(self) -> None:
        """Hears that the next face is another's: the way to it leads from what is shown now."""
        # Without a face, it leads from what is shown instead of one.
        if self._last is not None and self._lost_s == 0.0:
            self._shown, self._returned_s = self._last, 0.0

    def found(self, params: FaceParameters, step_s: float) -> FaceParameters:
        """Returns what to show in a frame with a face: the face, or the way back to it.

        Args:
            params: The face.
            step_s: Time since the frame before.
        """
        self._lost_s = 0.0
        if self._shown is not None:
            self._returned_s += min(step_s, _RETURN_STEP_S)
            share = self._returned_s / _RETURN_S
            if share >= 1:
                self._shown = None
            else:
                params = _between(self._shown, params, share * share * (3 - 2 * share))
        self._last = params
        return params


def _between(start: FaceParameters, stop: FaceParameters, share: float) -> FaceParameters:
    """Blends two faces; all that is not blended is that of ``stop``."""

    def mixed(name: str, sign: float = 1.0) -> FloatArray:
        first, second = getattr(start, name), getattr(stop, name)
        return ((1 - share) * first + share * sign * second).astype(np.float32)

    rotation = mixed("rotation", 1.0 if start.rotation @ stop.rotation >= 0 else -1.0)
    return replace(
        stop,
        rotation=rotation / np.linalg.norm(rotation),
        translation=mixed("translation"),
        scale=float((1 - share) * start.scale + share * stop.scale),
        expression=mixed("expression"),
        eye_rotation=mixed("eye_rotation"),
    )
