# SPDX-License-Identifier: Apache-2.0
"""The face's static maps looked up on the host (paper, Sec. 3.2): in compiled code, before a graph.

Runtimes for CPUs look up every texel of the picture, in a pass for each step of the interpolation.
Here only what shows the face is looked up, in one pass. Does not import torch.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from styleavatar_core.types import ByteArray, FloatArray

_SCALE = 2  # samples per texel side


class FaceLookup:
    """Bilinear sampling of a person's face, two samples per texel side. Not thread-safe.

    Args:
        feature: (F, F, C) float32, static feature map in UV space.
        colours: (G, G, 3) float32, its image.
    """

    def __init__(self, feature: FloatArray, colours: FloatArray) -> None:
        self._maps = tuple(np.ascontiguousarray(part, np.float32) for part in (feature, colours))
        self._samples: tuple[FloatArray, ...] = ()

    def sample(self, uv: FloatArray, face_mask: ByteArray) -> tuple[FloatArray, FloatArray]:
        """Samples both maps.

        Args:
            uv: (B, U, U, 2) float32 in [0, 1].
            face_mask: (B, U, U) uint8, 1 on the face.

        Returns:
            Feature (B, U / 2, U / 2, 4C) and colours (B, U / 2, U / 2, 12), the samples of a texel
            in its channels as ``pixel_unshuffle`` puts them; zero outside the face. Valid until the
            next call.

        Raises:
            ValueError: The arrays do not belong together.
        """
        count, *sides = face_mask.shape
        if uv.shape != (*face_mask.shape, 2) or any(side % _SCALE for side in sides):
            raise ValueError(
                f"a UV map of shape {uv.shape} and a face mask of shape {face_mask.shape} do not "
                f"belong together; sides must be equal and multiples of {_SCALE}"
            )
        texels = (count, *(side // _SCALE for side in sides))
        shapes = tuple((*texels, _SCALE**2 * part.shape[2]) for part in self._maps)
        if tuple(part.shape for part in self._samples) != shapes:
            self._samples = tuple(np.empty(shape, np.float32) for shape in shapes)
        coordinates, mask = np.ascontiguousarray(uv, np.float32), np.ascontiguousarray(face_mask)
        for number in range(count):
            for part, samples in zip(self._maps, self._samples, strict=True):
                _sample(part, coordinates[number], mask[number], samples[number])
        feature, colours = self._samples
        return feature, colours


@njit(cache=True, nogil=True, error_model="numpy")
def _sample(texture: FloatArray, uv: FloatArray, mask: ByteArray, samples: FloatArray) -> None:
    """Fills (H, W, 4C) with samples of (F, F, C) at (2H, 2W, 2)."""
    size, channels = texture.shape[0], texture.shape[2]
    height, width, _ = samples.shape
    for texel in range(height * width):
        y, x = texel // width, texel % width
        for part in range(4):
            row, column = 2 * y + part // 2, 2 * x + part % 2
            if mask[row, column] == 0:
                for channel in range(channels):
                    samples[y, x, 4 * channel + part] = np.float32(0)
                continue
            left, right_share = _place(uv[row, column, 0], size)
            top, below_share = _place(uv[row, column, 1], size)
            weight = np.float32(mask[row, column])
            for channel in range(channels):
                a, b = texture[top, left, channel], texture[top, left + 1, channel]
                c, d = texture[top + 1, left, channel], texture[top + 1, left + 1, channel]
                above = a + right_share * (b - a)
                below = c + right_share * (d - c)
                samples[y, x, 4 * channel + part] = weight * (above + below_share * (below - above))


@njit(cache=True, nogil=True, inline="always")
def _place(coordinate: np.float32, size: int) -> tuple[int, np.float32]:
    """Returns the texel before a coordinate and the share of the next; the border is repeated."""
    position = coordinate * np.float32(size) - np.float32(0.5)
    # What is not a number is not greater than zero either.
    position = position if position > 0 else np.float32(0)
    position = min(position, np.float32(size - 1))
    first = min(int(position), size - 2)
    return first, position - np.float32(first)
