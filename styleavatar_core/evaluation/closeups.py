# SPDX-License-Identifier: Apache-2.0
"""Eyes, mouth and hair of held-out frames beside the truth, as large as one looks at them.

Means over pictures say little about irises, teeth and strands: they are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.data.picture import contact_sheet, encode_jpeg
from styleavatar_core.evaluation.evaluate import RenderIndex, held_out_truth, landmark_pixels
from styleavatar_core.face3d.landmark_groups import FACE_OVAL, LIDS, LIPS
from styleavatar_core.types import ByteArray, FloatArray

_CELL_PX = 192
_MARGIN = 1.3  # side of a cut over what it shows
_LEAST_PX = 8

Square = tuple[float, float, float]
"""Middle (x, y) and side, pixels."""


def _around(points: FloatArray) -> Square:
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    return float(middle[0]), float(middle[1]), _MARGIN * float(np.ptp(points, axis=0).max())


def _eyes(pixels: FloatArray) -> Square:
    return _around(pixels[list(LIDS)])


def _mouth(pixels: FloatArray) -> Square:
    return _around(pixels[list(LIPS)])


def _hair(pixels: FloatArray) -> Square:
    """The square above the forehead, as wide as half the face is high."""
    oval = pixels[list(FACE_OVAL)]
    top, height = oval[oval[:, 1].argmin()], float(np.ptp(oval[:, 1]))
    return float(top[0]), float(top[1] - 0.1 * height), 0.6 * height


PARTS: dict[str, Callable[[FloatArray], Square]] = {"eyes": _eyes, "mouth": _mouth, "hair": _hair}


def closeups_sheet(dataset: AvatarDataset, render: RenderIndex, indices: Sequence[int]) -> bytes:
    """Returns cuts of frames, one row each, as JPEG.

    Columns: eyes, mouth and hair, each of the avatar and of the truth.

    Args:
        dataset: The clip.
        render: The avatar.
        indices: Held-out frames.
    """
    rows = []
    for index in indices:
        output, truth = render(index)[0], held_out_truth(dataset, index)
        pixels = landmark_pixels(dataset, index, truth.shape[0])
        squares = [find(pixels) for find in PARTS.values()]
        rows.append([cut(image, square) for square in squares for image in (output, truth)])
    return encode_jpeg(contact_sheet(rows, _CELL_PX))


def cut(image: ByteArray, square: Square) -> ByteArray:
    """Cuts a square out of an (S, S, 3) picture, moved so that it lies within."""
    size = image.shape[0]
    side = min(max(round(square[2]), _LEAST_PX), size)
    left, top = (min(max(round(middle - side / 2), 0), size - side) for middle in square[:2])
    return image[top : top + side, left : left + side]
