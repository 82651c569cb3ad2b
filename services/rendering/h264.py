# SPDX-License-Identifier: Apache-2.0
"""One stream's H.264 encoder: a picture in, its access unit out, nothing held back.

FFmpeg is loaded with the service: with the first stream of video it would hold up all others.
"""

from __future__ import annotations

from fractions import Fraction

import av

from styleavatar_core.data.coding import BT709, coded
from styleavatar_core.types import ByteArray

# A caller who joins late or lost a picture waits this long for the next key frame.
KEY_FRAME_INTERVAL_S = 2


class H264Encoder:
    """Encodes without delay: no B-frames, no look-ahead, one slice thread."""

    def __init__(self, side_px: int, frames_per_second: int, bits_per_second: int) -> None:
        """Opens the encoder.

        Args:
            side_px: Side of the square pictures, even.
            frames_per_second: Nominal rate, for the rate control.
            bits_per_second: Mean bit rate.
        """
        self._count = 0
        codec = av.CodecContext.create("libx264", "w")
        codec.width = codec.height = side_px
        codec.pix_fmt = "yuv420p"
        codec.colorspace = BT709
        codec.framerate = Fraction(frames_per_second)
        codec.time_base = Fraction(1, frames_per_second)
        codec.bit_rate = bits_per_second
        codec.gop_size = KEY_FRAME_INTERVAL_S * frames_per_second
        codec.thread_count = 1
        codec.options = {"preset": "veryfast", "tune": "zerolatency"}
        self._codec = codec

    def encode(self, image: ByteArray) -> tuple[bytes, bool]:
        """Encodes the next picture.

        Args:
            image: (S, S, 3) uint8 RGB.

        Returns:
            Its access unit in Annex B form, and whether it is a key frame.
        """
        frame = coded(image)
        frame.pts = self._count
        self._count += 1
        packets = self._codec.encode(frame)
        return b"".join(bytes(packet) for packet in packets), any(
            packet.is_keyframe for packet in packets
        )
