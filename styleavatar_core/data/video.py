# SPDX-License-Identifier: Apache-2.0
"""Decoding of video: RGB frames with their times, checked before use.

The only place that knows containers and codecs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av

from styleavatar_core.data.decoded import mirrors, picture_of, square_width, upright
from styleavatar_core.data.picture import fitted
from styleavatar_core.errors import InvalidInputError, NotFoundError
from styleavatar_core.types import ByteArray

MIN_DURATION_S = 5.0
MIN_FACE_FRAMES = 60  # with a face, for a training
MAX_SIDE_PX = 4096
_USUAL_FPS = 25.0
# What is in one file. Playlists are not among them: they name others, which a stranger's upload
# must not make us read.
_CONTAINERS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "h264", "hevc"),
    *("mp3", "wav", "flac", "aac"),  # only sound, and told so
)


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a video file holds.

    Attributes:
        width: Upright width of the first frame, in square pixels.
        height: Upright height of the first frame, in square pixels.
        fps: Average frames per second.
        duration_s: Seconds.
        frame_count: Number of frames.
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
        first = _first_frame(container, stream, path)
        width, height = square_width(first.width, _pixel_aspect(stream)), first.height
        if first.rotation % 180:
            width, height = height, width
        codec = str(stream.codec_context.name)
    frame_count, fps = _count_and_rate(path)
    duration_s = frame_count / fps
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


def probe_for_training(path: Path | str) -> VideoInfo:
    """Does what :func:`probe` does, and refuses a clip of too few frames whatever they show.

    Raises:
        NotFoundError: There is no such file.
        InvalidInputError: Not a video, no picture in it, damaged, or too short.
    """
    info = probe(path)
    if info.frame_count < MIN_FACE_FRAMES:
        raise InvalidInputError(
            f"{Path(path).name} has {info.frame_count} frames, {info.fps:.3g} per second; an avatar"
            f" needs at least {MIN_FACE_FRAMES} with a face: film longer, or at a higher rate",
            reason="VIDEO_TOO_SHORT",
        )
    return info


def read_frames(path: Path | str) -> Iterator[tuple[int, float, ByteArray]]:
    """Decodes a video one frame after another, upright, in constant memory.

    All frames have the size of the first, also where the size changes within the file.

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
        pixel_aspect, nominal_fps = _pixel_aspect(stream), _nominal_fps(stream)
        start_s: float | None = None
        size: tuple[int, int] | None = None
        is_mirrored = False
        index = 0
        try:
            for frame in container.decode(stream):
                time_s = frame.time if frame.time is not None else index / nominal_fps
                start_s = time_s if start_s is None else start_s
                is_mirrored = mirrors(frame) if index == 0 else is_mirrored
                picture = picture_of(frame, pixel_aspect)
                picture = upright(picture, frame.rotation, is_mirrored=is_mirrored)
                size = picture.shape[:2] if size is None else size
                # A call changes its size when the network is slow or the phone is turned.
                yield index, time_s - start_s, fitted(picture, *size)
                index += 1
        except av.error.FFmpegError as error:
            raise _damaged(path, index) from error
    if index == 0:
        raise _damaged(path, index)


def _open(path: Path) -> av.container.InputContainer:
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}")
    try:
        return av.open(str(path), options={"format_whitelist": ",".join(_CONTAINERS)})
    except av.error.FFmpegError as error:
        raise InvalidInputError(
            f"{path.name} is not a video that can be read (or it is cut off); send an mp4, mov, "
            "webm or mkv file",
            reason="NOT_A_VIDEO",
        ) from error


def _video_stream(
    container: av.container.InputContainer, path: Path
) -> av.video.stream.VideoStream:
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    what = "only sound" if container.streams.audio else "no moving picture"
    raise InvalidInputError(
        f"{path.name} holds {what}; an avatar needs a video of a face", reason="NO_VIDEO_STREAM"
    )


def _first_frame(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, path: Path
) -> av.VideoFrame:
    try:
        frame = next(container.decode(stream), None)
    except av.error.FFmpegError as error:
        raise _damaged(path, 0) from error
    if frame is None:
        raise _damaged(path, 0)
    return frame


def _pixel_aspect(stream: av.video.stream.VideoStream) -> float:
    return float(stream.sample_aspect_ratio or 1)


def _nominal_fps(stream: av.video.stream.VideoStream) -> float:
    """Returns the rate that the header promises, for frames that have no time of their own."""
    return float(stream.average_rate or _USUAL_FPS)


def _count_and_rate(path: Path) -> tuple[int, float]:
    """Counts frames and finds their average rate from the times of their packets.

    Headers are not asked: what a browser recorded says neither rate nor length, and a file that
    was cut off says those of the whole.
    """
    stamps: list[int] = []
    count = 0
    with _open(path) as container:
        stream = _video_stream(container, path)
        unit, nominal_fps = stream.time_base, _nominal_fps(stream)
        try:
            for packet in container.demux(stream):
                if packet.size == 0 or packet.is_discard:
                    continue
                count += 1
                if packet.pts is not None:
                    stamps.append(packet.pts)
        except av.error.FFmpegError as error:
            raise _damaged(path, count) from error
    span = max(stamps) - min(stamps) if stamps else 0
    return count, float((len(stamps) - 1) / (span * unit)) if span and unit else nominal_fps


def _damaged(path: Path, frame_count: int) -> InvalidInputError:
    return InvalidInputError(
        f"{path.name} is damaged or cut off: decoding stopped after {frame_count} frames; "
        "export or upload it again",
        reason="VIDEO_DAMAGED",
    )
