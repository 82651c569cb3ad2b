# SPDX-License-Identifier: Apache-2.0
"""Colours of video: how they are coded, and high dynamic range."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import av
import numpy as np
import pytest

from styleavatar_core.data.tone import HLG, PQ, to_screen
from styleavatar_core.data.video import read_frames
from styleavatar_core.data.video_writer import VideoWriter

WIDTH, HEIGHT = 64, 48
SKIN = (200, 150, 120)
BT2020 = 9
LIMITED = 1
# As ITU-R BT.2087 has it.
TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])


@pytest.mark.parametrize(("height", "coding"), [(480, 5), (720, 1)])
def test_colours_without_a_word_on_their_coding_are_read_as_players_do(
    tmp_path: Path, height: int, coding: int
) -> None:
    path = tmp_path / "untagged.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, height, "yuv420p"
        picture = np.full((height, WIDTH, 3), SKIN, np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        coded = frame.reformat(format="yuv420p", dst_colorspace=coding)
        coded.colorspace = 2
        container.mux(stream.encode(coded))
        container.mux(stream.encode(None))
    _, _, image = next(iter(read_frames(path)))
    assert image.mean(axis=(0, 1)) == pytest.approx(SKIN, abs=2)


@pytest.mark.parametrize("height", [HEIGHT, 720])
def test_colours_survive_our_own_writer_and_are_named_in_its_file(
    tmp_path: Path, height: int
) -> None:
    path = tmp_path / "own.mp4"
    with VideoWriter(path, 10, WIDTH, height) as writer:
        for _ in range(5):
            writer.write(np.full((height, WIDTH, 3), SKIN, np.uint8))
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).colorspace == 1
    _, _, image = next(iter(read_frames(path)))
    assert image.mean(axis=(0, 1)) == pytest.approx(SKIN, abs=2)


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
