# SPDX-License-Identifier: Apache-2.0
"""Video as phones and webcams make it: turned, of varying rate, of high dynamic range, long."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from styleavatar_core.data.tone import HLG, PQ, to_screen
from styleavatar_core.data.video import VideoWriter, probe, read_frames

WIDTH, HEIGHT = 64, 48
SKIN = (200, 150, 120)
BT2020, LIMITED = 9, 1
# As ITU-R BT.2087 has it.
TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])


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


def pq_code(nits: np.ndarray) -> np.ndarray:
    power = (nits / 10_000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def hlg_code(nits: np.ndarray) -> np.ndarray:
    scene = (nits / 1000) ** (1 / 1.2)
    a = 0.17883277
    log = a * np.log(np.maximum(12 * scene - (1 - 4 * a), 1e-9)) + 0.5 - a * np.log(4 * a)
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), log)


def wide(color: Iterable[int]) -> np.ndarray:
    """An sRGB colour as light with the primaries of BT.2020, 203 nits for white."""
    encoded = np.array(list(color)) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return 203 * TO_BT2020 @ linear


@pytest.mark.parametrize(("transfer", "code"), [(PQ, pq_code), (HLG, hlg_code)])
def test_high_dynamic_range_keeps_the_skin(
    tmp_path: Path, transfer: int, code: Callable[[np.ndarray], np.ndarray]
) -> None:
    path = tmp_path / "hdr.mkv"
    ten_bit = np.rint(1023 * code(wide(SKIN))).astype(np.uint16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "gbrp10le"
        context = stream.codec_context
        context.color_trc, context.color_primaries = transfer, BT2020
        for _ in range(60):
            frame = av.VideoFrame(WIDTH, HEIGHT, "gbrp10le")
            frame.color_trc, frame.color_primaries = transfer, BT2020
            for plane, value in zip(frame.planes, ten_bit[[1, 2, 0]], strict=True):
                plane.update(np.full(plane.buffer_size // 2, value, "<u2").tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    _, _, image = next(iter(read_frames(path)))
    assert image.dtype == np.uint8
    assert image.mean(axis=(0, 1)) == pytest.approx(SKIN, abs=4)


def test_lights_are_compressed_and_stay_in_order() -> None:
    nits = np.geomspace(0.01, 10_000, 200)
    ramp = np.rint(65535 * pq_code(nits)).astype(np.uint16)
    shown = to_screen(np.repeat(ramp[None, :, None], 3, axis=2), PQ)[0]
    assert (np.diff(shown.astype(int), axis=0) >= 0).all()
    assert shown[np.searchsorted(nits, 203)].min() > 225
    assert shown[-1].min() == 255
    assert np.ptp(shown, axis=1).max() <= 2  # grey stays grey


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
