# SPDX-License-Identifier: Apache-2.0
"""The front sees what is in the store now, and grants what an avatar can give."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from styleavatar.v1 import image_pb2, rendering_service_pb2

from services.common.storage import AvatarStore
from services.rendering.catalog import AvatarCatalog, AvatarEntry
from services.rendering.convert import avatar_to_message, grant_config
from services.rendering.settings import RenderingSettings
from services.tracking.settings import TrackingSettings
from styleavatar_core.errors import AssetError, InvalidInputError, NotFoundError
from tests.fakes.bundle import write_fake_bundle


@pytest.fixture
def entry(tmp_path: Path) -> AvatarEntry:
    write_fake_bundle(tmp_path / "anna", 1)
    return AvatarCatalog(AvatarStore(tmp_path)).get("anna")


def test_a_manifest_is_read_once_per_revision(tmp_path: Path) -> None:
    catalog = AvatarCatalog(AvatarStore(tmp_path))
    with pytest.raises(NotFoundError, match="'anna'"):
        catalog.get("anna")
    write_fake_bundle(tmp_path / "anna", 1)
    assert catalog.known("anna") is None
    first = catalog.get("anna")
    assert catalog.get("anna") is first
    assert catalog.known("anna") is first
    write_fake_bundle(tmp_path / "anna", 2)
    second = catalog.get("anna")
    assert second.revision != first.revision
    assert second.manifest.style_time == 2
    shutil.rmtree(tmp_path / "anna")
    with pytest.raises(NotFoundError):
        catalog.get("anna")
    assert catalog.list() == []


def test_a_damaged_manifest_is_said(tmp_path: Path) -> None:
    write_fake_bundle(tmp_path / "anna", 1)
    (tmp_path / "anna" / "avatar.json").write_text("{")
    with pytest.raises(AssetError):
        AvatarCatalog(AvatarStore(tmp_path)).get("anna")


def test_an_avatar_is_described(tmp_path: Path) -> None:
    write_fake_bundle(tmp_path / "anna", 1)
    (entry,) = AvatarCatalog(AvatarStore(tmp_path)).list()
    message = avatar_to_message(entry, loaded=True)
    assert (message.avatar_id, message.preset, message.image_size_px) == ("anna", "nano", 64)
    assert list(message.face_identity.identity) == [0.5, -0.25]
    assert message.loaded


def test_defaults_are_granted(entry: AvatarEntry) -> None:
    granted = grant_config(rendering_service_pb2.RenderConfig(avatar_id="anna"), entry)
    assert granted == rendering_service_pb2.RenderConfig(
        avatar_id="anna",
        image_format=image_pb2.IMAGE_FORMAT_JPEG,
        jpeg_quality=90,
        image_size_px=64,
        frame_mode=image_pb2.FRAME_MODE_LATEST_FRAME,
        driver=rendering_service_pb2.DRIVER_OTHER_PERSON,
        background=rendering_service_pb2.BACKGROUND_ORIGINAL,
        crop=rendering_service_pb2.Region(side=1),
        frame_deadline=Duration(seconds=1),
        frames_per_second=30,
        gains=rendering_service_pb2.DriverGains(gaze=1, blink=1, mouth=1, head=1),
        live=True,
    )


@pytest.mark.parametrize("is_live", [False, True])
def test_a_stream_of_every_frame_is_live_where_it_says_so(
    entry: AvatarEntry, is_live: bool
) -> None:
    asked = rendering_service_pb2.RenderConfig(
        avatar_id="anna", frame_mode=image_pb2.FRAME_MODE_EVERY_FRAME, live=is_live
    )
    assert grant_config(asked, entry).live == is_live


def test_gains_are_granted_as_asked_none_included(entry: AvatarEntry) -> None:
    asked = rendering_service_pb2.RenderConfig(
        gains=rendering_service_pb2.DriverGains(mouth=1.5, head=0)
    )
    gains = grant_config(asked, entry).gains
    assert (gains.gaze, gains.blink, gains.mouth, gains.head) == (1, 1, 1.5, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"image_format": 7},
        {"frame_mode": 7},
        {"background": 9},
        {"jpeg_quality": -1},
        {"jpeg_quality": 101},
        {"image_size_px": 15},
        {"image_size_px": 2049},
        {"frames_per_second": 121},
        {"frames_per_second": -1},
        {"frame_deadline": Duration(seconds=-1)},
        {"frame_deadline": Duration()},
        {"frame_deadline": Duration(seconds=61)},
        {"crop": rendering_service_pb2.Region(left=0.6, side=0.5)},
        {"crop": rendering_service_pb2.Region(top=0.6, side=0.5)},
        {"crop": rendering_service_pb2.Region(left=-0.1, side=0.5)},
        {"crop": rendering_service_pb2.Region(left=float("nan"), side=0.5)},
        {"crop": rendering_service_pb2.Region(left=0.5)},
        {"background": rendering_service_pb2.BACKGROUND_TRANSPARENT},
        {"gains": rendering_service_pb2.DriverGains(gaze=3.5)},
        {"gains": rendering_service_pb2.DriverGains(head=float("nan"))},
        {"image_format": image_pb2.IMAGE_FORMAT_H264, "image_size_px": 65},
        {"image_format": image_pb2.IMAGE_FORMAT_H264, "bits_per_second": 10},
        {"image_format": image_pb2.IMAGE_FORMAT_H264, "bits_per_second": 50_000_001},
    ],
)
def test_what_cannot_be_granted_is_refused(entry: AvatarEntry, change: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError):
        grant_config(rendering_service_pb2.RenderConfig(**change), entry)


@pytest.mark.parametrize(
    "change",
    [
        {"jpeg_quality": 1, "image_size_px": 16, "frames_per_second": 1},
        {"jpeg_quality": 100, "image_size_px": 2048, "frames_per_second": 120},
        {"frame_deadline": Duration(seconds=60)},
        {"crop": rendering_service_pb2.Region(left=0.5, top=0.75, side=0.25)},
        {"image_format": image_pb2.IMAGE_FORMAT_H264, "bits_per_second": 50_000_000},
    ],
)
def test_what_is_just_within_the_bounds_is_granted(
    entry: AvatarEntry, change: dict[str, object]
) -> None:
    granted = grant_config(rendering_service_pb2.RenderConfig(**change), entry)
    assert {name: getattr(granted, name) for name in change} == change


@pytest.mark.parametrize(
    ("size_px", "rate", "expected"), [(256, 30, 983_040), (2048, 120, 50_000_000)]
)
def test_a_video_without_a_bit_rate_gets_what_its_pixels_need(
    entry: AvatarEntry, size_px: int, rate: int, expected: int
) -> None:
    asked = rendering_service_pb2.RenderConfig(
        image_format=image_pb2.IMAGE_FORMAT_H264, image_size_px=size_px, frames_per_second=rate
    )
    assert grant_config(asked, entry).bits_per_second == expected


def test_a_background_is_granted_without_its_data(entry: AvatarEntry) -> None:
    raw = image_pb2.Image(format=image_pb2.IMAGE_FORMAT_RAW_RGB, width_px=16, height_px=16)
    raw.data = bytes(16 * 16 * 3)
    asked = rendering_service_pb2.RenderConfig(
        background=rendering_service_pb2.BACKGROUND_IMAGE, background_image=raw
    )
    granted = grant_config(asked, entry)
    assert (granted.background_image.width_px, granted.background_image.data) == (16, b"")


def test_the_newest_avatars_come_first_and_damaged_ones_not_at_all(tmp_path: Path) -> None:
    for mark, name in enumerate(("anna", "ben", "carla", "damaged")):
        write_fake_bundle(tmp_path / name, mark)
        os.utime(tmp_path / name / "avatar.json", (mark, mark))
    (tmp_path / "damaged" / "avatar.json").write_text("{")
    catalog = AvatarCatalog(AvatarStore(tmp_path))
    assert [entry.avatar_id for entry in catalog.newest(2)] == ["carla", "ben"]
    assert [entry.avatar_id for entry in catalog.list()] == ["anna", "ben", "carla"]


def test_an_avatar_that_is_just_being_replaced_is_not_missed(tmp_path: Path) -> None:
    catalog = AvatarCatalog(AvatarStore(tmp_path))
    write_fake_bundle(tmp_path / "anna", 1)
    missed: list[str] = []
    entry = catalog.get("anna")
    catalog.on_change = missed.append
    (tmp_path / "anna").rename(tmp_path / ".away")
    back = threading.Timer(0.02, (tmp_path / ".away").rename, (tmp_path / "anna",))
    back.start()
    assert catalog.get("anna") is entry
    assert missed == []
    back.join()


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [(RenderingSettings, "STYLEAVATAR_RENDERING_"), (TrackingSettings, "STYLEAVATAR_TRACKING_")],
)
def test_settings_come_from_variables_and_refuse_misspelt_ones(
    kind: type, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{prefix}PORT", "1234")
    assert kind().port == 1234
    monkeypatch.setenv(f"{prefix}PORTT", "1")
    with pytest.raises(InvalidInputError, match="PORTT"):
        kind()
    monkeypatch.delenv(f"{prefix}PORTT")
    monkeypatch.setenv(f"{prefix}WORKER_COUNT", "0")
    with pytest.raises(InvalidInputError):
        kind()
