# SPDX-License-Identifier: Apache-2.0
"""Video as phones and webcams make it: turned, of varying rate or size, long."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from styleavatar_core.data.video import probe, read_frames
from styleavatar_core.data.video_writer import VideoWriter
from styleavatar_core.errors import InvalidInputError
from tests.fakes.browser_recording import record_in_a_browser

WIDTH, HEIGHT = 64, 48


def write_turned(path: Path, matrix: tuple[int, ...]) -> Path:
    """An mp4 whose header says how to turn it, as phones write; its upper left part is white."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[: HEIGHT // 2, : WIDTH // 2] = 255
    with VideoWriter(path, 10, WIDTH, HEIGHT) as writer:
        for _ in range(60):
            writer.write(picture)
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    data[start : start + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)
    return path


ONE, UNIT = 1 << 16, 1 << 30


@pytest.mark.parametrize(
    ("matrix", "size", "white"),
    [
        ((0, ONE, 0, -ONE, 0, 0, HEIGHT * ONE, 0, UNIT), (HEIGHT, WIDTH), (0, 1)),
        ((0, -ONE, 0, ONE, 0, 0, 0, WIDTH * ONE, UNIT), (HEIGHT, WIDTH), (1, 0)),
        ((-ONE, 0, 0, 0, -ONE, 0, WIDTH * ONE, HEIGHT * ONE, UNIT), (WIDTH, HEIGHT), (1, 1)),
        # Mirrored: from left to right, from top to bottom, and a phone's selfie.
        ((-ONE, 0, 0, 0, ONE, 0, WIDTH * ONE, 0, UNIT), (WIDTH, HEIGHT), (0, 1)),
        ((ONE, 0, 0, 0, -ONE, 0, 0, HEIGHT * ONE, UNIT), (WIDTH, HEIGHT), (1, 0)),
        ((0, ONE, 0, ONE, 0, 0, 0, 0, UNIT), (HEIGHT, WIDTH), (0, 0)),
        ((0, -ONE, 0, -ONE, 0, 0, HEIGHT * ONE, WIDTH * ONE, UNIT), (HEIGHT, WIDTH), (1, 1)),
    ],
)
def test_a_turned_phone_video_is_upright(
    tmp_path: Path, matrix: tuple[int, ...], size: tuple[int, int], white: tuple[int, int]
) -> None:
    path = write_turned(tmp_path / "turned.mp4", matrix)
    info = probe(path)
    _, _, frame = next(iter(read_frames(path)))
    assert (info.width, info.height) == size == (frame.shape[1], frame.shape[0])
    rows, columns = (np.array_split(np.arange(n), 2) for n in frame.shape[:2])
    quarters = [[frame[np.ix_(r, c)].mean() for c in columns] for r in rows]
    assert np.unravel_index(np.argmax(quarters), (2, 2)) == white
    assert np.max(quarters) > 240
    assert np.sort(np.ravel(quarters))[2] < 20


def test_times_of_a_varying_rate_are_those_of_the_frames(tmp_path: Path) -> None:
    times_ms = np.cumsum([0, *np.random.default_rng(0).integers(15, 120, 99)])
    path = tmp_path / "vary.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for time_ms in times_ms:
            frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
            frame.pts, frame.time_base = int(time_ms), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    read = [time_s for _, time_s, _ in read_frames(path)]
    assert np.array(read) == pytest.approx(times_ms / 1000, abs=2e-3)
    assert probe(path, min_duration_s=1.0).duration_s == pytest.approx(
        times_ms[-1] / 1000, rel=0.05
    )


def picture_at(time_ms: int) -> np.ndarray:
    """A picture whose grey says when it was taken."""
    return np.full((HEIGHT, WIDTH, 3), time_ms // 50 % 250, np.uint8)


def record(path: Path, times_ms: Iterable[int]) -> Path:
    record_in_a_browser(path, [(time_ms, picture_at(time_ms)) for time_ms in times_ms])
    return path


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    times_ms = np.cumsum([0, *np.random.default_rng(1).integers(15, 90, 149)])
    return record(tmp_path / "recording.webm", times_ms)


def test_a_browser_recording_says_its_length_and_rate_by_its_frames(recording: Path) -> None:
    with av.open(str(recording)) as container:
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.duration, container.duration) == (None, None, None)
        assert stream.guessed_rate == 1000
    times_s = [time_s for _, time_s, _ in read_frames(recording)]
    info = probe(recording)
    assert info.frame_count == len(times_s) == 150
    assert info.fps == pytest.approx(149 / times_s[-1])
    assert 15 < info.fps < 25
    assert info.duration_s == pytest.approx(times_s[-1] * 150 / 149)


def test_a_short_browser_recording_is_refused_with_its_true_length(tmp_path: Path) -> None:
    path = record(tmp_path / "short.webm", range(0, 3000, 50))
    with pytest.raises(InvalidInputError, match=r"3\.0 s long"):
        probe(path)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_pixels_that_are_not_square_are_made_so(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"anamorphic.{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        for time_ms in range(0, 6000, 100):
            frame = av.VideoFrame.from_ndarray(picture_at(time_ms), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    info = probe(path)
    _, _, frame = next(iter(read_frames(path)))
    assert (info.height, info.width) == frame.shape[:2] == (HEIGHT, 3 * WIDTH // 2)


def test_a_size_that_changes_within_a_file_stays_that_of_the_first_frame(tmp_path: Path) -> None:
    path = tmp_path / "call.h264"
    sizes = [(96, 128), (48, 64), (128, 96)]  # rows and columns: slower network, turned phone
    units = b""
    for rows, columns in sizes:
        coder = av.CodecContext.create("libx264", "w")
        coder.width, coder.height, coder.pix_fmt = columns, rows, "yuv420p"
        coder.time_base = Fraction(1, 10)
        coder.options = {"tune": "zerolatency", "crf": "1"}
        picture = np.zeros((rows, columns, 3), np.uint8)
        picture[:, columns // 4 : 3 * columns // 4] = 200  # a bar, half as wide as the picture
        for index in range(30):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = index
            units += b"".join(bytes(packet) for packet in coder.encode(frame))
        units += b"".join(bytes(packet) for packet in coder.encode(None))
    path.write_bytes(units)
    frames = [frame for _, _, frame in read_frames(path)]
    assert len(frames) == 90
    assert {frame.shape for frame in frames} == {(96, 128, 3)}
    bars = [int((frame[48, :, 0] > 100).sum()) for frame in (frames[0], frames[45], frames[75])]
    assert bars == pytest.approx([64, 64, 96 * 0.75 / 2], abs=2)


def test_a_long_file_takes_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    picture = np.random.default_rng(0).integers(0, 255, (480, 640, 3)).astype(np.uint8)
    with VideoWriter(path, 30, 640, 480, quality=40) as writer:
        for _ in range(240):
            writer.write(picture)
    process, after = psutil.Process(), {}
    for index, _, _ in read_frames(path):
        if index in (60, 239):
            after[index] = process.memory_info().rss
    assert len(after) == 2
    assert after[239] - after[60] < 15 * picture.nbytes  # 180 frames went by
