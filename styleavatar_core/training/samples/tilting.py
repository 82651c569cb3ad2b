# SPDX-License-Identifier: Apache-2.0
"""Heads that tilt farther than a clip shows them: its frames, turned about the neck.

Networks cannot guess what a head looks like whose roll no frame has: its hair tears. The camera
would see the same head, though (``face3d.tilt``).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.face3d.camera import parameters_in_crop
from styleavatar_core.face3d.tilt import tilt_matrix, tilt_sources
from styleavatar_core.training.samples.below_frame import extend_person
from styleavatar_core.types import ByteArray


@dataclass(frozen=True, slots=True)
class TiltedFrame:
    """A frame's canvas arrays, see ``AvatarDataset``: heads are turned alike, bodies stay.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        mask: (S, S) uint8, 255 = person.
        valid: (S, S) uint8, 1 where ``image`` is to be compared with.
        mask_valid: (S, S) uint8, the same of ``mask``.
        rendering: (R, R, 3) uint8.
        uv: (R, R, 2) uint16.
    """

    image: ByteArray
    mask: ByteArray
    valid: ByteArray
    mask_valid: ByteArray
    rendering: ByteArray
    uv: np.ndarray


def tilt_frame(dataset: AvatarDataset, index: int, degrees: float) -> TiltedFrame:
    """Tilts the head of a frame, and the room beside it.

    Args:
        dataset: The clip.
        index: Frame.
        degrees: By how much, clockwise on the screen.
    """
    canvas = dataset.info.crop.enlarged(dataset.info.canvas_factor)
    upright = parameters_in_crop(dataset.parameters[index], canvas)

    head = tilt_matrix(upright, degrees, dataset.info.rendering_canvas_px)
    person = tilt_sources(upright, degrees, dataset.info.canvas_size_px)

    def of_person(array: np.ndarray, interpolation: int, border: int) -> np.ndarray:
        return cv2.remap(array, *person, interpolation, borderMode=border)

    def of_head(array: np.ndarray, interpolation: int) -> np.ndarray:
        return cv2.warpAffine(array, head, array.shape[:2], flags=interpolation)

    mask = np.asarray(dataset.masks[index])
    image, valid, mask_valid = extend_person(dataset.frames[index], mask, dataset.valid)
    smooth, nearest = cv2.INTER_LINEAR, cv2.INTER_NEAREST
    goes_on, ends = cv2.BORDER_REPLICATE, cv2.BORDER_CONSTANT
    return TiltedFrame(
        image=of_person(np.asarray(image), smooth, goes_on),
        mask=of_person(mask, smooth, goes_on),
        valid=of_person(valid, nearest, ends),
        mask_valid=of_person(mask_valid, nearest, ends),
        rendering=of_head(np.asarray(dataset.renderings[index]), smooth),
        uv=of_head(np.asarray(dataset.uv[index]), nearest),
    )
