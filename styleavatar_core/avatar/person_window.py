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
from styleavatar_core.face3d.camera import rotation_vector_from_quaternion
from styleavatar_core.face3d.tilt import tilt_head
from styleavatar_core.types import FaceParameters

# A place is rare with a rotation beyond what was seen with it, and so many standard deviations of
# the place: a driver's head turns about another point than the avatar's.
_ROOM_STD = 2.0


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
        statistics = ParameterStatistics.from_dict(manifest.statistics)
        self._seen, self._turned = statistics.translation, statistics.rotation
        self._by_rotation = statistics.place_by_rotation
        room = _ROOM_STD * self._seen.std
        self._least = self._by_rotation.minimum - room
        self._most = self._by_rotation.maximum + room

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
        place, usual = self._place_and_usual(wanted)
        least = np.maximum(self._seen.minimum, usual + self._least)
        most = np.minimum(self._seen.maximum, usual + self._most)
        border = np.minimum(np.maximum(place, least), most)
        beyond = place - border
        if not np.count_nonzero(beyond):
            return wanted, (0, 0)
        # Far beyond the border it is drawn as far within it, at most where such a head often was:
        # what was seen once or twice has holes. Close to it bodies stay while heads move.
        often = self._by_rotation.std
        inward = border - np.minimum(np.maximum(border, usual - often), usual + often)
        far = np.maximum(np.abs(beyond) - self._seen.std, 0.0)
        apart = beyond + np.sign(beyond) * np.minimum(far, np.abs(inward))
        texels_per_unit = wanted.scale * self._texels / 2  # the side is two frame units
        moved = np.rint(apart * texels_per_unit).clip(-self._limit, self._limit)
        still = np.array(wanted.translation, np.float32)
        still[:2] -= moved / texels_per_unit
        # The head goes one way when the window goes the other.
        return replace(wanted, translation=still), (-int(moved[0]), -int(moved[1]))

    def _place_and_usual(self, wanted: FaceParameters) -> tuple[np.ndarray, np.ndarray]:
        """Returns the (2,) place of a head, and where one with its rotation usually was.

        One that is tilted farther than the clip shows is what training tilted: taken back first.
        """
        rotation = rotation_vector_from_quaternion(wanted.rotation)
        held = np.minimum(np.maximum(rotation, self._turned.minimum), self._turned.maximum)
        if rotation[2] != held[2]:
            wanted = tilt_head(wanted, float(np.rad2deg(held[2] - rotation[2])))
        usual = self._by_rotation.told(held)
        return (
            wanted.translation[:2],
            np.minimum(np.maximum(usual, self._seen.minimum), self._seen.maximum),
        )
