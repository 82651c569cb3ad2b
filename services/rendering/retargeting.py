# SPDX-License-Identifier: Apache-2.0
"""From what a driver's stream says to what its avatar shall show, frame after frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from styleavatar_core.avatar.manifest import AvatarManifest
from styleavatar_core.face3d.camera import parameters_in_crop
from styleavatar_core.types import FaceParameters


class StreamRetargeter:
    """Retargets one stream; remembers the last face for frames without one."""

    def __init__(self, manifest: AvatarManifest, *, same_person: bool) -> None:
        """Starts a stream.

        Args:
            manifest: The avatar's.
            same_person: Whether the driver is the avatar's person, filmed as in the training video.
        """
        self._manifest = manifest
        self._last = FaceParameters(
            "builtin-1",
            np.array([1, 0, 0, 0], np.float32),
            np.zeros(3, np.float32),
            0.5,
            np.zeros(52, np.float32),
            np.zeros((2, 2), np.float32),
        )

    def set_neutral(self) -> None:
        """Declares the driver's latest expression neutral."""

    def retarget(self, parameters: FaceParameters | None) -> tuple[FaceParameters, bool]:
        """Maps a driver's face to the avatar's window.

        Args:
            parameters: In the driver's frame coordinates; None to hold the last face.

        Returns:
            Parameters in window coordinates; whether they were clamped to the trained range.
        """
        if parameters is not None:
            self._last = parameters_in_crop(parameters, self._manifest.crop)
            self._last = replace(self._last, frame_index=parameters.frame_index)
        return self._last, False
