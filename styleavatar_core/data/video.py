# SPDX-License-Identifier: Apache-2.0
"""Decoding and encoding of video: RGB frames with their times, checked before use.

The only place that knows containers, codecs, rotation metadata and chroma subsampling.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from styleavatar_core.data.tone import HLG, PQ, to_screen
from styleavatar_core.errors import InvalidInputError, NotFoundError
from styleavatar_core.types import ByteArray

logger = logging.getLogger(__name__)

MIN_DURATION_S = 5.0
MAX_SIDE_PX = 4096


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a video file holds.

    Attributes:
        width: Upright width in pixels, rotation metadata applied.
        height: Upright height in pixels, rotation metadata applied.
        fps: Average frames per second.
        duration_s: Seconds.
        frame_count: Number of frames, estimated from duration and rate where the file does not say.
        codec: Name of the video codec.
    """

    width: int
    height: int
    fps: float
    duration_s: float
    frame_count: int
    codec: str


def probe(path: Path | str, min_duration_s: float = MIN_DURATION_S) -> VideoInfo:
    """Reads what a video file holds and refuses files that no avatar can be made from.

    Args:
        path: The file.
        min_duration_s: Shortest clip that is accepted, seconds.

    Returns:
        Size, rate and length.

    Raises:
        NotFoundError: There is no such file.
        InvalidInputError: Not a video, no picture in it, damaged, or too short.
    """
    path = Path(path)
    with _open(path) as container:
        stream = _video_stream(container, path)
        first, rotation = _first_frame(container, stream, path)
        fps = float(stream.average_rate or stream.guessed_rate or 25)
        duration_s = _duration_s(container, stream, path, fps)
        width, height = first.width, first.height
        codec = str(stream.codec_context.name)
        frame_count = int(stream.frames) or round(duration_s * fps)
    if rotation % 180:
        width, height = height, width
    if duration_s < min_duration_s:
        raise InvalidInputError(
            f"{path.name} is {duration_s:.1f} s long; an avatar needs at least {min_duration_s:g} s"
            " of video, better one to two minutes with different head poses and expressions",
            reason="VIDEO_TOO_SHORT",
        )
    if max(width, height) > MAX_SIDE_PX:
        raise InvalidInputError(
            f"{path.name} has {width}x{height} pixels; at most {MAX_SIDE_PX} per side are accepted",
            reason="VIDEO_TOO_LARGE",
        )
    return VideoInfo(width, height, fps, duration_s, frame_count, codec)


def read_frames(path: Path | str) -> Iterator[tuple[int, float, ByteArray]]:
    """Decodes a video one frame after another, upright, in constant memory.

    Args:
        path: The file.

    Yields:
        (index, time_s, frame): running number, presentation time in seconds from the first frame,
        and (H, W, 3) uint8 RGB.

    Raises:
        NotFoundError: There is no such file.
        InvalidInputError: Not a video, or its data is damaged.
    """
    path = Path(path)
    with _open(path) as container:
        stream = _video_stream(container, path)
        stream.thread_type = "AUTO"
        fps = float(stream.average_rate or stream.guessed_rate or 25)
        start_s: float | None = None
        index = 0
        try:
            for frame in container.decode(stream):
                time_s = frame.time if frame.time is not None else index / fps
                start_s = time_s if start_s is None else start_s
                yield index, time_s - start_s, _upright(_to_rgb(frame), frame.rotation)
                index += 1
        except av.error.FFmpegError as error:
            raise _damaged(path, index) from error
    if index == 0:
        raise _damaged(path, index)


class VideoWriter:
    """Writes RGB frames as an H.264 file (mp4, yuv420p) that every browser plays.

    Args:
        path: The file to write.
        fps: Frames per second.
        width: Even number of pixels.
        height: Even number of pixels.
        quality: x264 constant rate factor; lower is better, 18 is visually lossless.
    """

    def __init__(
        self, path: Path | str, fps: float, width: int, height: int, *, quality: int = 18
    ) -> None:
        if width % 2 or height % 2:
            raise InvalidInputError(
                f"video size {width}x{height} is odd; H.264 needs an even width and height"
            )
        self.width, self.height = width, height
        self._container = av.open(str(path), "w", format="mp4")
        self._stream = self._container.add_stream(
            "libx264", rate=Fraction(fps).limit_denominator(1001)
        )
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": str(quality), "preset": "veryfast"}

    def write(self, frame: ByteArray) -> None:
        """Appends one (H, W, 3) uint8 RGB frame."""
        if frame.shape != (self.height, self.width, 3):
            raise InvalidInputError(
                f"frame has shape {frame.shape}; this video takes {(self.height, self.width, 3)}"
            )
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        for packet in self._stream.encode(picture):
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


def _open(path: Path) -> av.container.InputContainer:
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}")
    try:
        return av.open(str(path))
    except av.error.FFmpegError as error:
        raise InvalidInputError(
            f"{path.name} is not a video that can be read (or it is cut off); send an mp4, mov, "
            "webm or mkv file",
            reason="NOT_A_VIDEO",
        ) from error


def _video_stream(
    container: av.container.InputContainer, path: Path
) -> av.video.stream.VideoStream:
    still = {"png", "mjpeg", "bmp", "gif", "webp", "tiff", "ansi"}
    for stream in container.streams.video:
        is_cover = bool(stream.disposition & av.stream.Disposition.attached_pic)
        is_picture = stream.codec_context.name in still and stream.frames <= 1
        if not is_cover and not (is_picture and _is_picture_file(container)):
            return stream
    what = "only sound" if container.streams.audio else "no moving picture"
    raise InvalidInputError(
        f"{path.name} holds {what}; an avatar needs a video of a face", reason="NO_VIDEO_STREAM"
    )


def _is_picture_file(container: av.container.InputContainer) -> bool:
    """Says whether the demuxer is one for single pictures or text art."""
    name = container.format.name
    return "image2" in name or name.endswith("_pipe") or name in {"tty", "gif", "bin"}


def _first_frame(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, path: Path
) -> tuple[av.VideoFrame, int]:
    try:
        frame = next(container.decode(stream), None)
    except av.error.FFmpegError as error:
        raise _damaged(path, 0) from error
    if frame is None:
        raise _damaged(path, 0)
    return frame, int(frame.rotation)


def _duration_s(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    path: Path,
    fps: float,
) -> float:
    """Finds the length from the header, or by reading all packets when the header is silent."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration:
        return container.duration / av.time_base
    try:
        container.seek(0)
        return sum(packet.size > 0 for packet in container.demux(stream)) / fps
    except av.error.FFmpegError as error:
        raise _damaged(path, 0) from error


def _damaged(path: Path, frame_count: int) -> InvalidInputError:
    return InvalidInputError(
        f"{path.name} is damaged or cut off: decoding stopped after {frame_count} frames; "
        "export or upload it again",
        reason="VIDEO_DAMAGED",
    )


def _to_rgb(frame: av.VideoFrame) -> ByteArray:
    """Returns a decoded frame as (H, W, 3) uint8 sRGB, whatever its depth and range."""
    if frame.color_trc not in (PQ, HLG):
        return frame.to_ndarray(format="rgb24")
    return to_screen(frame.to_ndarray(format="rgb48le"), int(frame.color_trc))


def _upright(image: ByteArray, rotation_degrees: int) -> ByteArray:
    """Turns a decoded picture by its display rotation (counter-clockwise degrees)."""
    quarter_turns = round(rotation_degrees / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarter_turns)) if quarter_turns else image
