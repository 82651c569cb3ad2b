# SPDX-License-Identifier: Apache-2.0
"""Pictures are composed, cut and stored as a stream's caller asked."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from styleavatar.v1 import image_pb2, rendering_service_pb2

from services.common.image_codec import encode_image
from services.common.storage import AvatarStore
from services.rendering.catalog import AvatarCatalog
from services.rendering.convert import grant_config
from services.rendering.output import GREEN_SCREEN_RGB, PictureWriter, read_background
from services.rendering.pool.frames import RenderedPicture
from styleavatar_core.errors import InvalidInputError
from styleavatar_core.types import ByteArray
from tests.fakes.bundle import write_fake_bundle
from tests.fakes.renderer import half_mask, marked_image

RAW = image_pb2.IMAGE_FORMAT_RAW_RGB
PERSON = (10, 7, 50)


@pytest.fixture
def granted(tmp_path: Path):
    write_fake_bundle(tmp_path / "anna", 1)
    entry = AvatarCatalog(AvatarStore(tmp_path)).get("anna")

    def grant(**asked: object) -> rendering_service_pb2.RenderConfig:
        return grant_config(rendering_service_pb2.RenderConfig(**asked), entry)

    return grant


def picture(with_mask: bool = True) -> RenderedPicture:
    mask = half_mask() if with_mask else None
    return RenderedPicture(marked_image(10, 7, 0.5), {}, mask)


def written(config: rendering_service_pb2.RenderConfig, background: ByteArray | None = None):
    writer = PictureWriter(config, background)
    image = image_pb2.Image()
    writer.write(picture(writer.needs_mask), image)
    side_px = config.image_size_px
    return np.frombuffer(image.data, np.uint8).reshape(side_px, side_px, 3)


def test_the_person_stands_before_what_was_asked_for(granted) -> None:
    green = written(
        granted(image_format=RAW, background=rendering_service_pb2.BACKGROUND_GREEN_SCREEN)
    )
    assert tuple(green[5, 60]) == PERSON
    assert tuple(green[5, 3]) == GREEN_SCREEN_RGB
    own = np.full((64, 64, 3), (1, 2, 3), np.uint8)
    replaced = written(
        granted(image_format=RAW, background=rendering_service_pb2.BACKGROUND_IMAGE), own
    )
    assert tuple(replaced[5, 60]) == PERSON
    assert tuple(replaced[5, 3]) == (1, 2, 3)
    original = written(granted(image_format=RAW))
    assert (original == PERSON).all()


@pytest.mark.parametrize("side_px", [16, 64, 300])
def test_a_label_stands_in_the_corner_at_every_size(granted, side_px: int) -> None:
    half = rendering_service_pb2.Region(side=0.5)
    asked = {"image_format": RAW, "image_size_px": side_px, "crop": half}
    plain, labelled = written(granted(**asked)), written(granted(**asked, visible_label=True))
    rows, columns = np.nonzero((plain != labelled).any(axis=2))
    assert (rows.min(), columns.max()) == (0, side_px - 1)
    assert rows.max() < max(10, 0.11 * side_px)
    assert columns.min() >= side_px - max(15, 0.16 * side_px)
    assert labelled.max() > 150  # letters, on dark
    assert (plain == PERSON).all()


def test_nothing_is_seen_through_a_label(granted) -> None:
    config = granted(
        image_format=image_pb2.IMAGE_FORMAT_PNG,
        background=rendering_service_pb2.BACKGROUND_TRANSPARENT,
        visible_label=True,
    )
    image = image_pb2.Image()
    PictureWriter(config).write(
        RenderedPicture(marked_image(10, 7, 0.5), {}, 0 * half_mask()), image
    )
    alpha = np.asarray(Image.open(io.BytesIO(image.data)))[..., 3]
    assert alpha[0, -1] == 255
    assert alpha[0, 0] == alpha[-1, -1] == 0


def test_transparency_is_an_alpha_channel(granted) -> None:
    config = granted(
        image_format=image_pb2.IMAGE_FORMAT_PNG,
        background=rendering_service_pb2.BACKGROUND_TRANSPARENT,
        image_size_px=32,
    )
    image = image_pb2.Image()
    PictureWriter(config).write(picture(), image)
    with Image.open(io.BytesIO(image.data)) as opened:
        assert (opened.mode, opened.size) == ("RGBA", (32, 32))
        assert opened.getpixel((30, 5)) == (*PERSON, 255)
        assert opened.getpixel((2, 5))[3] == 0


def test_a_crop_is_cut_before_resizing(granted) -> None:
    crop = rendering_service_pb2.Region(left=0.5, top=0.25, side=0.5)
    green = rendering_service_pb2.BACKGROUND_GREEN_SCREEN
    right = written(granted(image_format=RAW, crop=crop, background=green, image_size_px=48))
    assert (right == PERSON).all()
    crop.left = 0
    left = written(granted(image_format=RAW, crop=crop, background=green, image_size_px=48))
    assert (left == GREEN_SCREEN_RGB).all()
    crop.side = 1e-6
    assert written(granted(image_format=RAW, crop=crop)).shape == (64, 64, 3)


def test_a_crop_is_as_far_down_and_right_as_was_asked(granted) -> None:
    crop = rendering_service_pb2.Region(left=0.25, top=0.5, side=0.25)
    rows, columns = np.indices((64, 64), np.uint8)
    rendered = RenderedPicture(np.dstack([rows, columns, 0 * rows]), {})
    image = image_pb2.Image()
    PictureWriter(granted(image_format=RAW, crop=crop, image_size_px=16)).write(rendered, image)
    seen = np.frombuffer(image.data, np.uint8).reshape(16, 16, 3)
    assert np.array_equal(seen, rendered.image[32:48, 16:32])


def test_h264_decodes_to_the_pictures_one_by_one(granted) -> None:
    config = granted(
        image_format=image_pb2.IMAGE_FORMAT_H264, frames_per_second=10, bits_per_second=2_000_000
    )
    writer = PictureWriter(config)
    decoder = av.CodecContext.create("h264", "r")
    decoder.flags |= av.codec.context.Flags.low_delay
    decoder.thread_count = 1
    keys, decoded = [], []
    for index in range(22):
        image = image_pb2.Image()
        colour = np.array([10, 10, 4], np.uint8) * index  # grey tells no coding from another
        rendered = RenderedPicture(np.broadcast_to(colour, (64, 64, 3)).copy(), {})
        keys.append(writer.write(rendered, image))
        decoded += decoder.decode(av.Packet(image.data))
    decoded += decoder.decode(None)
    assert [index for index, is_key in enumerate(keys) if is_key] == [0, 20]
    means = [frame.to_ndarray(format="rgb24").mean(axis=(0, 1)) for frame in decoded]
    assert np.abs(np.array(means) - np.outer(np.arange(22), [10, 10, 4])).max() < 4
    assert {int(frame.colorspace) for frame in decoded} == {1}  # BT.709, as players are told


def test_an_unreadable_background_is_refused_and_another_kept_as_large_as_it_shows() -> None:
    asked = rendering_service_pb2.RenderConfig(background=rendering_service_pb2.BACKGROUND_IMAGE)
    with pytest.raises(InvalidInputError, match="background_image"):
        read_background(asked, 64)
    asked.background_image.format = image_pb2.IMAGE_FORMAT_JPEG
    with pytest.raises(InvalidInputError):
        read_background(asked, 64)
    asked.background_image.data = encode_image(np.zeros((2000, 3000, 3), np.uint8), "jpeg")
    read = read_background(asked, 64)
    assert read is not None
    assert read.shape == (64, 64, 3)
    assert read_background(rendering_service_pb2.RenderConfig(), 64) is None
