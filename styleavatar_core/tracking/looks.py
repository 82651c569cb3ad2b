# SPDX-License-Identifier: Apache-2.0
"""Landmarks averaged over four looks at each picture: for files, where time is cheap.

MediaPipe tells another pitch of a turned head than of its mirror image, another yaw, and another of
both when the picture is tilted, for it then sees the face in a wider box. The mean over the picture
and its mirror image, each upright and tilted, errs less in all and trembles less, at four times the
cost. Nothing in it was learned from faces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.tracking.landmarks import Backend, LandmarkDetector, height_of
from styleavatar_core.types import ByteArray, FloatArray

# Tilted pictures are smaller, so that what was at the border is still in them.
_TILT_DEG, _TILTED_SCALE = 10.0, 0.88
# Faces whose centres are further apart, in face heights, are those of two people.
_SAME_PLACE = 0.15


@cache
def mirror_partners() -> npt.NDArray[np.int64]:
    """Returns each landmark's partner on the other side of the face: (478,) int64, an involution.

    The mean face of the built-in model is symmetric to the bit, so its points say.
    """
    model = builtin_model()
    points = model.mean_shape[model.landmark_indices]
    mirrored = points * np.array([-1.0, 1.0, 1.0], np.float32)
    partners: npt.NDArray[np.int64] = np.linalg.norm(
        mirrored[:, None] - points[None], axis=-1
    ).argmin(axis=1)
    return partners


@dataclass(frozen=True, slots=True)
class Look:
    """One way to look at a picture.

    Attributes:
        is_mirrored: Whether at its mirror image.
        is_tilted: Whether it is turned, and made smaller, after that.
    """

    is_mirrored: bool
    is_tilted: bool

    def picture(self, frame: ByteArray) -> ByteArray:
        """Returns what is looked at, of the size of the frame, (H, W, 3) uint8 RGB."""
        view = np.asarray(cv2.flip(frame, 1), np.uint8) if self.is_mirrored else frame
        if not self.is_tilted:
            return view
        height, width = frame.shape[:2]
        border = cv2.BORDER_REPLICATE
        turned = cv2.warpAffine(view, _tilt(width, height), (width, height), borderMode=border)
        return np.asarray(turned, np.uint8)

    def landmarks(self, seen: FloatArray, width: int, height: int) -> FloatArray:
        """Returns (478, 3) landmarks, found in :meth:`picture`, as those of the frame, pixels."""
        points = seen.copy()
        if self.is_tilted:
            back = cv2.invertAffineTransform(_tilt(width, height))
            # Pixel centres are whole numbers to the tilt, and halves to landmarks.
            points[:, :2] = (points[:, :2] - 0.5) @ back[:, :2].T + back[:, 2] + 0.5
            points[:, 2] /= _TILTED_SCALE
        if self.is_mirrored:
            points = points[mirror_partners()]
            points[:, 0] = width - points[:, 0]
        return points


_WAYS = (False, True)
LOOKS = tuple(Look(is_mirrored, is_tilted) for is_mirrored in _WAYS for is_tilted in _WAYS)


class FourLooksDetector(LandmarkDetector):
    """Finds landmarks as its base does, each the mean of four looks at every frame."""

    def _open_follower(self) -> Backend:
        open_one = super()._open_follower
        return Looker([open_one() for _ in LOOKS])


class Looker:
    """Follows one face in all looks at each picture.

    Its landmarks are the mean of the looks that find it. Where they have come to follow two people
    it says nothing, so that the face is looked for again.

    Args:
        followers: One for each look.
    """

    def __init__(self, followers: Sequence[Backend]) -> None:
        self._followers = followers

    def landmarks(self, frame: ByteArray) -> list[FloatArray]:
        """Returns (478, 3) float32 pixels of the one face in (H, W, 3) uint8 RGB, or nothing."""
        height, width = frame.shape[:2]
        faces = [
            look.landmarks(seen, width, height)
            for look, follower in zip(LOOKS, self._followers, strict=True)
            for seen in follower.landmarks(look.picture(frame))
        ]
        if not faces:
            return []
        centers = np.stack([face[:, :2].mean(axis=0) for face in faces])
        apart = np.linalg.norm(centers - centers[0], axis=1).max()
        return [np.mean(faces, axis=0)] if apart < _SAME_PLACE * height_of(faces[0]) else []

    def close(self) -> None:
        """Frees the models."""
        for follower in self._followers:
            follower.close()


@cache
def _tilt(width: int, height: int) -> FloatArray:
    """Returns the (2, 3) float64 map of pixels that tilts a picture about its centre."""
    center = (width - 1) / 2, (height - 1) / 2
    return np.asarray(cv2.getRotationMatrix2D(center, _TILT_DEG, _TILTED_SCALE), np.float64)
