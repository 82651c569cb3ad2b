# SPDX-License-Identifier: Apache-2.0
"""H.264 access units become pictures; damage is said, and ends with the next key frame."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from services.rendering.h264 import H264Encoder
from services.tracking.h264 import (
    BACKLOG_BYTES,
    GAP,
    H264Decoder,
    backlog,
    is_key_frame,
)
from styleavatar_core.errors import InvalidInputError

SIDE_PX = 64
FRAMES_PER_SECOND = 5  # a key frame comes every other second


def level(index: int) -> int:
    return 40 + 8 * index


@pytest.fixture(scope="module")
def units() -> list[bytes]:
    encoder = H264Encoder(SIDE_PX, FRAMES_PER_SECOND, 300_000)
    pictures = [np.full((SIDE_PX, SIDE_PX, 3), level(index), np.uint8) for index in range(21)]
    return [encoder.encode(picture)[0] for picture in pictures]


def fails(decoder: H264Decoder, unit: bytes) -> str:
    with pytest.raises(InvalidInputError) as caught:
        decoder.decode(unit)
    return caught.value.reason


def test_every_unit_gives_its_own_picture_at_once(units: list[bytes]) -> None:
    assert [i for i, unit in enumerate(units) if is_key_frame(unit)] == [0, 10, 20]
    decoder = H264Decoder()
    for index, unit in enumerate(units):
        picture = decoder.decode(unit)
        assert picture.shape == (SIDE_PX, SIDE_PX, 3)
        assert picture.mean() == pytest.approx(level(index), abs=5)


@pytest.mark.parametrize("garbage", [b"", b"garbage" * 20, b"\x00\x00\x01\x65" + b"\xff" * 300])
def test_after_garbage_the_next_key_frame_recovers(units: list[bytes], garbage: bytes) -> None:
    decoder = H264Decoder()
    assert fails(decoder, units[3]) == "KEY_FRAME_NEEDED"
    decoder.decode(units[0])
    assert fails(decoder, garbage) == "UNREADABLE_IMAGE"
    assert [fails(decoder, unit) for unit in units[1:4]] == ["KEY_FRAME_NEEDED"] * 3
    assert decoder.decode(units[10]).mean() == pytest.approx(level(10), abs=5)


def test_damaged_units_never_do_worse_than_fail(units: list[bytes]) -> None:
    rng, decoder, failed = np.random.default_rng(0), H264Decoder(), 0
    for _ in range(200):
        unit = bytearray(units[rng.integers(len(units))])
        for _ in range(4):
            unit[rng.integers(len(unit))] = rng.integers(256)
        try:
            assert decoder.decode(bytes(unit)).dtype == np.uint8
        except InvalidInputError:
            failed += 1
    assert failed > 100
    assert decoder.decode(units[0]).mean() == pytest.approx(level(0), abs=5)


def test_a_picture_too_large_is_refused() -> None:
    encoder = H264Encoder(8, FRAMES_PER_SECOND, 300_000)
    unit, _ = encoder.encode(np.zeros((8, 8, 3), np.uint8))
    assert fails(H264Decoder(), unit) == "WRONG_IMAGE_SIZE"


def test_what_gave_way_is_decoded_before_what_took_its_place(units: list[bytes]) -> None:
    decoder = H264Decoder()
    waiting: tuple[bytes, ...] = ()
    for unit, following in pairwise(units[:6]):
        waiting = backlog(waiting, unit, following)
    assert waiting == tuple(units[:5])
    for unit in waiting:
        decoder.skip(unit)
    assert decoder.decode(units[5]).mean() == pytest.approx(level(5), abs=5)
    # A key frame builds on nothing, and a backlog that has grown too long is a gap.
    assert backlog(waiting, units[9], units[10]) == ()
    assert backlog((bytes(BACKLOG_BYTES),), units[6], units[7]) == (GAP,)
    decoder.skip(GAP)
    assert fails(decoder, units[7]) == "KEY_FRAME_NEEDED"
