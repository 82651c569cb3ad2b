# SPDX-License-Identifier: Apache-2.0
"""One stream's H.264 decoder: an access unit in, its picture out, nothing held back."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from services.common.image_codec import SIDE_PX_MAX, check_size
from styleavatar_core.errors import InvalidInputError
from styleavatar_core.types import ByteArray

if TYPE_CHECKING:
    import av

GAP = b""  # stands for access units that were lost
# Of a live stream, units that may wait for the next tracked frame; beyond, a key frame is needed.
BACKLOG_COUNT, BACKLOG_BYTES = 120, 4_000_000
_START_CODE = b"\x00\x00\x01"
_KEY_PICTURE, _PARAMETER_SET = 5, 7  # types of NAL units
_TYPE_MASK = 0x1F


class H264Decoder:
    """Decodes one stream; after damage it waits for the next key frame."""

    def __init__(self) -> None:
        import av  # only streams that send video load FFmpeg

        from styleavatar_core.data.decoded import picture_of

        self._av, self._picture_of = av, picture_of
        self._codec: av.VideoCodecContext | None = None

    def decode(self, unit: bytes) -> ByteArray:
        """Decodes the next access unit.

        Args:
            unit: Annex B, one picture; a key frame carries its parameter sets.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            InvalidInputError: It cannot be decoded, or a key frame is needed first.
        """
        frame = self._frame(unit)
        check_size(frame.width, frame.height)
        return self._picture_of(frame)

    def skip(self, unit: bytes) -> None:
        """Decodes an access unit whose picture nobody asks for; ``GAP`` where some are missing."""
        if unit == GAP:
            self._codec = None
            return
        with contextlib.suppress(InvalidInputError):
            self._frame(unit)

    def _frame(self, unit: bytes) -> av.VideoFrame:
        if is_key_frame(unit):
            self._codec = self._open()
        if self._codec is None:
            raise InvalidInputError(
                "An H.264 stream begins, and goes on after damage, with a key frame that carries "
                "its parameter sets.",
                reason="KEY_FRAME_NEEDED",
            )
        try:
            frames = self._codec.decode(self._av.Packet(unit))
        except self._av.error.FFmpegError:
            frames = []
        if len(frames) != 1 or frames[0].is_corrupt:
            self._codec = None
            raise InvalidInputError(
                "The frame is no readable H.264 access unit of one picture; send a key frame.",
                reason="UNREADABLE_IMAGE",
            )
        return frames[0]

    def _open(self) -> av.VideoCodecContext:
        codec = self._av.CodecContext.create("h264", "r")
        codec.thread_count = 1
        # Pictures come in the order of their units; what is damaged is no picture.
        codec.flags |= self._av.codec.context.Flags.low_delay
        codec.options = {"err_detect": "explode", "max_pixels": str(SIDE_PX_MAX**2)}
        return codec


def backlog(earlier: tuple[bytes, ...], unit: bytes, following: bytes) -> tuple[bytes, ...]:
    """Returns what must be decoded before a unit that takes the place of another one.

    Args:
        earlier: What had to be decoded before the one that gives way.
        unit: That one.
        following: The one that takes its place.
    """
    if is_key_frame(following):
        return ()
    units = (*earlier, unit)
    fits = len(units) <= BACKLOG_COUNT and sum(map(len, units)) <= BACKLOG_BYTES
    return units if fits else (GAP,)


def is_key_frame(unit: bytes) -> bool:
    """Says whether decoding can begin with an access unit: an IDR picture with parameter sets."""
    types = set()
    start = unit.find(_START_CODE)
    while 0 <= start < len(unit) - len(_START_CODE):
        types.add(unit[start + len(_START_CODE)] & _TYPE_MASK)
        start = unit.find(_START_CODE, start + len(_START_CODE))
    return {_KEY_PICTURE, _PARAMETER_SET} <= types
