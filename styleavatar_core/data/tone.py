# SPDX-License-Identifier: Apache-2.0
"""High dynamic range to the range of screens: PQ and HLG pictures of phones as 8-bit sRGB.

Skin keeps its brightness: what is below three quarters of reference white stays as it is, what is
above is compressed. Colours leave the wide primaries of BT.2020 for those of BT.709.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from styleavatar_core.types import ByteArray, FloatArray

# Transfer characteristics as H.273 numbers them.
PQ, HLG = 16, 18

_REFERENCE_WHITE_NITS = 203.0  # ITU-R BT.2408
_HLG_PEAK_NITS, _HLG_GAMMA = 1000.0, 1.2
_KNEE = 0.75
_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    np.float32,
)
_STEPS = 65536  # so many that the darkest bytes have their own


def to_screen(image: npt.NDArray[np.uint16], transfer: int) -> ByteArray:
    """Maps a picture of high dynamic range.

    Args:
        image: (H, W, 3) uint16, full scale, RGB with the primaries of BT.2020.
        transfer: ``PQ`` or ``HLG``.

    Returns:
        (H, W, 3) uint8 sRGB.
    """
    linear = cv2.transform(_linear_of_code(transfer)[image], _TO_BT709)
    root = np.sqrt(np.clip(linear, 0.0, _LARGEST) / _LARGEST)
    return _byte_of_root()[(root * np.float32(_STEPS - 1)).astype(np.uint16)]


_LARGEST = np.float32(10_000 / _REFERENCE_WHITE_NITS)


@cache
def _linear_of_code(transfer: int) -> FloatArray:
    """Returns light by 16-bit code, (65536,) float32, 1 = reference white."""
    code = np.arange(65536) / 65535
    if transfer == PQ:  # SMPTE ST 2084
        power = code ** (32 / 2523)
        nits = 10_000 * (
            np.maximum(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)
        ) ** (16384 / 2610)
    else:  # ARIB STD-B67, each channel by itself
        a = 0.17883277
        b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
        scene = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
        nits = _HLG_PEAK_NITS * scene**_HLG_GAMMA
    return (nits / _REFERENCE_WHITE_NITS).astype(np.float32)


@cache
def _byte_of_root() -> ByteArray:
    """Returns sRGB bytes by the square root of light over the largest, (65536,) uint8."""
    light = (np.arange(_STEPS) / (_STEPS - 1)) ** 2 * float(_LARGEST)
    bent = _KNEE + (1 - _KNEE) * -np.expm1(-np.maximum(light - _KNEE, 0) / (1 - _KNEE))
    shown = np.where(light < _KNEE, light, bent)
    encoded = np.where(shown <= 0.0031308, 12.92 * shown, 1.055 * shown ** (1 / 2.4) - 0.055)
    return np.rint(255 * np.clip(encoded, 0, 1)).astype(np.uint8)
