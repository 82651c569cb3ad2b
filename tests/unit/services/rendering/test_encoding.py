# SPDX-License-Identifier: Apache-2.0
"""Pictures that take long to store take no time from others."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack

import pytest
from prometheus_client import CollectorRegistry
from styleavatar.v1 import image_pb2, rendering_service_pb2

from services.common.metrics import RenderingMetrics
from services.rendering.encoding import Encoding, _picture_s
from services.rendering.output import PictureWriter
from services.rendering.pool.frames import RenderedPicture
from styleavatar_core.cores import usable_core_count
from styleavatar_core.errors import OverloadedError

SIDE_PX = 64


def config(image_format: int, image_size_px: int) -> rendering_service_pb2.RenderConfig:
    return rendering_service_pb2.RenderConfig(
        image_format=image_format,
        jpeg_quality=90,
        image_size_px=image_size_px,
        frames_per_second=120,
        bits_per_second=1_000_000,
        crop=rendering_service_pb2.Region(side=1.0),
        background=rendering_service_pb2.BACKGROUND_ORIGINAL,
    )


LARGE = config(image_pb2.IMAGE_FORMAT_PNG, 2048)  # more than a core's time, on any machine
SMALL = config(image_pb2.IMAGE_FORMAT_JPEG, 256)


def test_streams_that_store_large_pictures_are_as_many_as_cores_and_others_go_on() -> None:
    registry = CollectorRegistry()
    count = usable_core_count()

    async def scenario() -> None:
        encoding = Encoding(RenderingMetrics(registry))
        async with AsyncExitStack() as streams:
            for _ in range(count):
                await streams.enter_async_context(encoding.reserved(LARGE, None, SIDE_PX))
            with pytest.raises(OverloadedError) as caught:
                await streams.enter_async_context(encoding.reserved(LARGE, None, SIDE_PX))
            assert caught.value.reason == "NO_CAPACITY"
            await streams.enter_async_context(encoding.reserved(SMALL, None, SIDE_PX))
        async with encoding.reserved(LARGE, None, SIDE_PX):  # room was given back
            pass

    asyncio.run(scenario())
    name = "styleavatar_rendering_refused_streams_total"
    assert registry.get_sample_value(name, {"reason": "capacity"}) == 1


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the threads that stored pictures, one for each picture."""
    names: list[str] = []
    write = PictureWriter.write

    def noted(writer: PictureWriter, picture: RenderedPicture, image: image_pb2.Image) -> bool:
        names.append(threading.current_thread().name)
        return write(writer, picture, image)

    monkeypatch.setattr(PictureWriter, "write", noted)
    return names


def test_who_is_refused_costs_nothing_when_he_comes_again(stored: list[str]) -> None:
    larger = config(image_pb2.IMAGE_FORMAT_PNG, 2000)

    async def scenario() -> list[int]:
        limit = 1.5 / usable_core_count()  # of all threads: one and a half
        encoding = Encoding(RenderingMetrics(CollectorRegistry()), utilization_limit=limit)
        counts = []
        async with encoding.reserved(LARGE, None, SIDE_PX):
            counts.append(len(stored))
            for _ in range(2):
                with pytest.raises(OverloadedError):
                    await encoding.reserved(larger, None, SIDE_PX).__aenter__()
                counts.append(len(stored))
        async with encoding.reserved(larger, None, SIDE_PX):
            counts.append(len(stored))
        return counts

    first, refused, again, alone = asyncio.run(scenario())
    assert 0 < first < refused
    assert refused == again == alone
    assert all(name.startswith("measuring") for name in stored)


def test_nothing_is_measured_where_no_room_is_left(stored: list[str]) -> None:
    async def scenario() -> tuple[int, int]:
        limit = 1 / usable_core_count()
        encoding = Encoding(RenderingMetrics(CollectorRegistry()), utilization_limit=limit)
        async with encoding.reserved(LARGE, None, SIDE_PX):
            before = len(stored)
            other = config(image_pb2.IMAGE_FORMAT_PNG, 2000)
            with pytest.raises(OverloadedError):
                await encoding.reserved(other, None, SIDE_PX).__aenter__()
        return before, len(stored)

    before, after = asyncio.run(scenario())
    assert before == after


def test_a_stream_alone_may_store_what_it_likes() -> None:
    async def scenario() -> None:
        encoding = Encoding(RenderingMetrics(CollectorRegistry()), utilization_limit=0.01)
        async with encoding.reserved(LARGE, None, SIDE_PX):
            pass

    asyncio.run(scenario())


@pytest.mark.parametrize(("image_format", "expected_s"), [("H264", 4.0), ("PNG", 1.0)])
def test_of_a_video_the_last_picture_counts_and_none_is_like_another(
    image_format: str, expected_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = config(image_pb2.ImageFormat.Value(f"IMAGE_FORMAT_{image_format}"), 64)
    pictures: list[bytes] = []

    def take(_: PictureWriter, picture: RenderedPicture, __: image_pb2.Image) -> bool:
        pictures.append(picture.image.tobytes())
        return False

    clock = iter([0.0, 2.0, 2.0, 3.0, 3.0, 7.0])
    with monkeypatch.context() as patch:
        patch.setattr(PictureWriter, "write", take)
        patch.setattr("services.rendering.encoding.time.thread_time", lambda: next(clock))
        assert _picture_s(asked, None, SIDE_PX) == expected_s
    assert len(set(pictures)) == len(pictures)


@pytest.mark.parametrize("background", ["GREEN_SCREEN", "TRANSPARENT"])
def test_every_kind_of_picture_can_be_measured(background: str) -> None:
    asked = config(image_pb2.IMAGE_FORMAT_PNG, 32)
    asked.background = rendering_service_pb2.Background.Value(f"BACKGROUND_{background}")

    async def scenario() -> None:
        async with Encoding(RenderingMetrics(CollectorRegistry())).reserved(asked, None, SIDE_PX):
            pass

    asyncio.run(scenario())


def test_pictures_that_are_being_stored_leave_the_threads_that_read_the_store() -> None:
    done = threading.Event()

    async def scenario() -> str:
        encoding = Encoding(RenderingMetrics(CollectorRegistry()))
        storing = [asyncio.create_task(encoding.run(done.wait, 60)) for _ in range(64)]
        await asyncio.sleep(0)  # all of them wait for a thread, or have one
        name = await asyncio.to_thread(lambda: threading.current_thread().name)
        done.set()
        await asyncio.gather(*storing)
        return name

    assert not asyncio.run(scenario()).startswith("encoding")
