# SPDX-License-Identifier: Apache-2.0
"""A head beyond the trained range: drawn where it was seen, in a window that moves (Sec. 3.2).

The networks get the face where training had it, and cut its picture out of the canvas from another
window than the background's. Numpy only.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from styleavatar_core.avatar.manifest import AvatarManifest
from styleavatar_core.avatar.statistics import ParameterStatistics
from styleavatar_core.types import FaceParameters


class PersonWindow:
    """Splits where a head shall be into a place within the trained range and a window.

    Args:
        manifest: The avatar's.
    """

    def __init__(self, manifest: AvatarManifest) -> None:
        self._limit = 0
        if manifest.window_reach == 0.0:
            return
        self._texels = int(manifest.generator["feature_size"])
        self._limit = round(manifest.window_reach * self._texels)
        seen = ParameterStatistics.from_dict(manifest.statistics).translation
        self._minimum, self._maximum = seen.minimum, seen.maximum
        self._usual, self._close = (seen.mean - seen.std, seen.mean + seen.std), seen.std

    def place(self, wanted: FaceParameters) -> tuple[FaceParameters, tuple[int, int]]:
        """Splits the place of a head.

        Args:
            wanted: In the coordinates of the avatar's window.

        Returns:
            The head within the trained range, up to a texel, and the (x, y) of the foreground's
            window, texels, that shows it where it is wanted to the sub-pixel.
        """
        if self._limit == 0:
            return wanted, (0, 0)
        place = wanted.translation[:2]
        border = np.minimum(np.maximum(place, self._minimum), self._maximum)
        beyond = place - border
        if not np.count_nonzero(beyond):
            return wanted, (0, 0)
        # Far beyond the border it is drawn as far within it, at most where it often was: what was
        # seen once or twice has holes. Close to it bodies stay while heads move.
        inward = border - np.minimum(np.maximum(border, self._usual[0]), self._usual[1])
        far = np.maximum(np.abs(beyond) - self._close, 0.0)
        apart = beyond + np.sign(beyond) * np.minimum(far, np.abs(inward))
        texels_per_unit = wanted.scale * self._texels / 2  # the side is two frame units
        moved = np.rint(apart * texels_per_unit).clip(-self._limit, self._limit)
        still = np.array(wanted.translation, np.float32)
        still[:2] -= moved / texels_per_unit
        # The head goes one way when the window goes the other.
        return replace(wanted, translation=still), (-int(moved[0]), -int(moved[1]))
