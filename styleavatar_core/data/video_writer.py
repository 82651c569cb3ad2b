# SPDX-License-Identifier: Apache-2.0
"""Encoding of video that every browser plays."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av

from styleavatar_core.data.coding import BT709, coded
from styleavatar_core.errors import InvalidInputError
from styleavatar_core.types import ByteArray


class VideoWriter:
    """Writes RGB frames as an H.264 file (mp4, yuv420p) that every browser plays.

    Args:
        path: The file to write.
        fps: Frames per second.
        width: Even number of pixels.
        height: Even number of pixels.
        quality: x264 constant rate factor; lower is better, 18 is visually lossless.
        note: What players show of the file, as its title and comment; nothing if empty.
    """

    def __init__(
        self,
        path: Path | str,
        fps: float,
        width: int,
        height: int,
        *,
        quality: int = 18,
        note: str = "",
    ) -> None:
        if width % 2 or height % 2:
            raise InvalidInputError(
                f"video size {width}x{height} is odd; H.264 needs an even width and height"
            )
        self.width, self.height = width, height
        self._container = av.open(str(path), "w", format="mp4")
        if note:
            self._container.metadata.update(title=note, comment=note)
        self._stream = self._container.add_stream(
            "libx264", rate=Fraction(fps).limit_denominator(1001)
        )
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.colorspace = BT709
        self._stream.options = {"crf": str(quality), "preset": "veryfast"}

    def write(self, frame: ByteArray) -> None:
        """Appends one (H, W, 3) uint8 RGB frame."""
        if frame.shape != (self.height, self.width, 3):
            raise InvalidInputError(
                f"frame has shape {frame.shape}; this video takes {(self.height, self.width, 3)}"
            )
        for packet in self._stream.encode(coded(frame)):
            self._container.mux(packet)

    def close(self) -> None:
        """Writes what is still in the encoder and ends the file."""
        for packet in self._stream.encode(None):
            self._container.mux(packet)
        self._container.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
