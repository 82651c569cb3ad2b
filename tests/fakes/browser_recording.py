# SPDX-License-Identifier: Apache-2.0
"""WebM as MediaRecorder makes it: written live, of varying rate, without rate, length or index."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def record_in_a_browser(path: Path, frames: Sequence[tuple[int, np.ndarray]]) -> None:
    """Writes frames, each with its time in milliseconds and (H, W, 3) uint8 RGB."""
    height, width = frames[0][1].shape[:2]
    coder = av.CodecContext.create("libvpx", "w")
    coder.width, coder.height, coder.pix_fmt = width, height, "yuv420p"
    coder.time_base = Fraction(1, 1000)
    coder.bit_rate = 4_000_000
    coder.options = {"deadline": "realtime", "lag-in-frames": "0", "cpu-used": "8"}
    with av.open(str(path), "w", format="webm", options={"live": "1"}) as container:
        stream = container.add_mux_stream("vp8", width=width, height=height, pix_fmt="yuv420p")
        for time_ms, picture in frames:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = int(time_ms), Fraction(1, 1000)
            for packet in coder.encode(frame):
                packet.stream = stream
                container.mux(packet)
