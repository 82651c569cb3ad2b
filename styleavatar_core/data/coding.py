# SPDX-License-Identifier: Apache-2.0
"""How our own files and streams code colours: BT.709, and they say so.

Who is told nothing takes small pictures for BT.601 and large ones for BT.709.
"""

from __future__ import annotations

import av
import numpy as np

from styleavatar_core.types import ByteArray

BT709 = 1  # as H.273 numbers it


def coded(image: ByteArray) -> av.VideoFrame:
    """Returns an (H, W, 3) uint8 sRGB picture as encoders take it: yuv420p, BT.709."""
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    return picture.reformat(format="yuv420p", dst_colorspace=BT709)
