# SPDX-License-Identifier: Apache-2.0
"""A person whom the lower edge of a clip's frame cuts: how samples go on below it.

No frame shows what is there, but a head that a live stream lifts brings it into the picture. What
nobody was told, networks fill with smears in which the person ends. At the other edges nothing is
made up: a head does not go on above itself, and beside a frame networks go on by themselves.
"""

from __future__ import annotations

import cv2
import numpy as np

from styleavatar_core.types import ByteArray

_PERSON_LEVEL = 127  # of 255: more than this is the person


def extend_person(
    picture: ByteArray, mask: ByteArray, valid: ByteArray
) -> tuple[ByteArray, ByteArray, ByteArray]:
    """Makes up a person below the lower edge: as wide as there, in the colours that are there.

    The deeper, the softer: each row has the colours of the person in the last row of the frame,
    averaged over as many pixels as it lies below. The frame's own columns, repeated, would be
    stripes.

    Args:
        picture: (H, W, 3) uint8, a sample box; its last row in the frame is repeated below it.
        mask: (H, W) uint8, 255 = person; likewise.
        valid: (H, W) uint8, 0 where the box leaves the source frame.

    Returns:
        The picture; (H, W) uint8, 1 where it is to be compared with, and the same of the mask.
    """
    inside = np.flatnonzero(valid.any(axis=1))
    first = int(inside[-1]) + 1 if len(inside) else len(valid)
    if first == len(valid):
        return picture, valid, valid
    picture, pictured, masked = picture.copy(), valid.copy(), valid.copy()
    pictured[first:] = mask[first:] > _PERSON_LEVEL
    masked[first:] = 1
    share = mask[first - 1, :, None].astype(np.float32) / 255
    weighted = np.concatenate([share * picture[first - 1], share], axis=1)[None]
    for depth, y in enumerate(range(first, len(picture)), start=1):
        # An average over an odd number of pixels stays where it is.
        mean = cv2.blur(weighted, (depth | 1, 1), borderType=cv2.BORDER_REPLICATE)[0]
        colors = mean[:, :3] / np.maximum(mean[:, 3:], 1e-6)
        matte = mask[y, :, None].astype(np.float32) / 255
        picture[y] = np.rint(picture[y] + (colors - picture[y]) * matte)
    return picture, pictured, masked
