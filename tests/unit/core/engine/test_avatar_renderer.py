# SPDX-License-Identifier: Apache-2.0
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from styleavatar_core.avatar.bundle import read_bundle, write_bundle
from styleavatar_core.avatar.conditioning import ConditioningRenderer
from styleavatar_core.avatar.person_window import PersonWindow
from styleavatar_core.avatar.statistics import ParameterStatistics
from styleavatar_core.engine import avatar_renderer
from styleavatar_core.engine.avatar_renderer import AvatarRenderer
from styleavatar_core.engine.base import HOME, RenderEngine
from styleavatar_core.engine.frozen.loading import load_maps
from styleavatar_core.engine.host_renderer import HostRenderer
from styleavatar_core.engine.selection import open_engine
from styleavatar_core.errors import AssetError, InvalidInputError, NotFoundError, RenderError
from styleavatar_core.evaluation.moves import shift_head
from styleavatar_core.networks import GeneratorConfig, PortraitGenerator, position_code
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.types import ByteArray, CropBox, FaceParameters
from tests.fakes.nano_bundle import write_nano_bundle


def face(yaw: float = 0.0, model_id: str = "builtin-3") -> FaceParameters:
    """A face in the middle of the window."""
    rotation = np.array([np.cos(yaw / 2), 0, np.sin(yaw / 2), 0], np.float32)
    zeros = np.zeros
    return FaceParameters(
        model_id,
        rotation,
        zeros(3, np.float32),
        0.4,
        zeros(52, np.float32),
        zeros((2, 2), np.float32),
    )


@pytest.fixture
def bundle_path(tmp_path: Path) -> Path:
    return write_nano_bundle(tmp_path / "avatar")


def test_parameters_become_a_picture_that_follows_them(bundle_path: Path) -> None:
    renderer = AvatarRenderer(bundle_path, backend="torch", thread_count=1)
    frame = renderer.render(face())
    assert frame.image.shape == (128, 128, 3)
    assert frame.image.dtype == np.uint8
    assert frame.mask.shape == (128, 128)
    assert set(frame.timings_ms) == {"conditioning", "network"}
    assert np.array_equal(frame.image, renderer.render(face()).image)
    assert not np.array_equal(frame.image, renderer.render(face(yaw=0.4)).image)
    renderer.close()


def test_an_avatar_that_cannot_be_made_ready_leaves_nothing_in_memory(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, closed = [], []

    def open_one(*arguments: object, **options: object) -> RenderEngine:
        engine = open_engine(*arguments, **options)
        opened.append(engine)
        monkeypatch.setattr(engine, "close", lambda: closed.append(engine))
        return engine

    def lack_memory(renderer: HostRenderer, batch_limit: int) -> None:
        raise RenderError("there is no memory for this batch")

    monkeypatch.setattr(avatar_renderer, "open_engine", open_one)
    monkeypatch.setattr(HostRenderer, "warm_up", lack_memory)
    with pytest.raises(RenderError):
        AvatarRenderer(bundle_path, backend="torch", thread_count=1)
    assert len(opened) == 1
    assert closed == opened


def test_a_batch_gives_each_face_its_picture(bundle_path: Path) -> None:
    renderer = AvatarRenderer(bundle_path, backend="torch", thread_count=1)
    assert renderer.batch_limit == 1  # on a CPU
    faces = [face(), face(yaw=0.4), face(yaw=-0.2)]
    for frame, parameters in zip(renderer.render_batch(faces), faces, strict=True):
        alone = renderer.render(parameters)
        difference = frame.image.astype(int) - alone.image.astype(int)
        assert np.abs(difference).max() <= 1
        assert (frame.mask == alone.mask).mean() > 0.99
    renderer.close()


def test_parameters_of_another_face_model_are_refused(bundle_path: Path) -> None:
    renderer = AvatarRenderer(bundle_path, backend="torch", thread_count=1)
    with pytest.raises(InvalidInputError, match="faceverse"):
        renderer.render(face(model_id="faceverse-v4"))


def test_avatar_of_another_face_model_is_refused(bundle_path: Path, tmp_path: Path) -> None:
    bundle = read_bundle(bundle_path)
    other = write_bundle(
        tmp_path / "other",
        bundle.manifest.model_copy(update={"model_id": "faceverse-v4"}),
        generator=bundle.generator(),
        features=bundle.features(),
        preview_jpeg=b"-",
    )
    with pytest.raises(AssetError, match="faceverse-v4"):
        AvatarRenderer(other)


def test_missing_bundle_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        AvatarRenderer(tmp_path / "nobody")


def write_narrow_bundle(path: Path, seed: int = 0) -> Path:
    """Writes an avatar that saw its head in the middle only, its window in many places."""
    seen = [
        replace(face(sign / 2), expression=np.full(52, sign > 0, np.float32)) for sign in (-1, 1)
    ]
    return write_nano_bundle(
        path,
        seed,
        statistics=ParameterStatistics.from_parameters(seen, CropBox(0.0, 0.0, 0.5)).to_dict(),
        training={"settings": TrainConfig().to_dict()},
    )


@pytest.fixture(scope="module")
def narrow_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_narrow_bundle(tmp_path_factory.mktemp("narrow") / "avatar")


def moved_by_networks(path: Path, still: FaceParameters, share: tuple[float, float]) -> ByteArray:
    """Renders by the networks as they are trained, with windows for person and background."""
    bundle = read_bundle(path)
    manifest = bundle.manifest
    config = GeneratorConfig.from_dict(manifest.generator)
    generator = PortraitGenerator(config)
    generator.load_state_dict({k: torch.from_numpy(v) for k, v in bundle.generator().items()})
    size = config.rendering_size_px
    renderer = ConditioningRenderer(manifest.face_model(), manifest.face_identity, size)
    seen, shown = renderer.render(still), renderer.render(shift_head(still, share))
    maps, _ = load_maps(bundle)
    window = [-round(part * config.feature_size) for part in share]
    with torch.no_grad():
        output = generator(
            position_code(torch.tensor([0.5]), config.style.style_dim, config.position_octaves),
            torch.from_numpy(seen.texture_rendering)[None].permute(0, 3, 1, 2) / 127.5 - 1,
            torch.from_numpy(shown.uv_rendering)[None].permute(0, 3, 1, 2),
            torch.from_numpy(shown.face_mask)[None, None].float(),
            maps.face,
            maps.background,
            torch.tensor([window]),
            torch.zeros(1, 2, dtype=torch.int64),
        )
    image = ((output.image[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return image.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("backend", ["torch", "onnxruntime", "openvino"])
def test_heads_beyond_the_trained_range_move_with_their_window(
    narrow_path: Path, backend: str
) -> None:
    renderer = AvatarRenderer(narrow_path, backend=backend, thread_count=1)
    shares = [(0.25, -0.125), (0.0, 0.0), (-0.125, 0.0)]
    frames = renderer.render_batch([shift_head(face(0.2), share) for share in shares])
    for frame, share in zip(frames, shares, strict=True):
        wanted = moved_by_networks(narrow_path, face(0.2), share)
        assert np.abs(frame.image.astype(int) - wanted).max() <= 2, share
    assert np.abs(frames[0].image.astype(int) - frames[1].image).max() > 20
    alone = renderer.render(face(0.2)).image  # the window is back in the middle
    assert np.abs(frames[1].image.astype(int) - alone).max() <= 1
    renderer.close()


def test_heads_stay_within_the_range_once_another_avatar_has_taken_the_bundles_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_narrow_bundle(tmp_path / "avatar")
    renderer = AvatarRenderer(path, backend="onnxruntime", thread_count=1)
    write_narrow_bundle(path, seed=5)
    moved = shift_head(face(0.2), (0.25, -0.125))
    frame = renderer.render(moved)
    assert [record.msg for record in caplog.records if "stay within it" in record.msg]
    still, window = PersonWindow(renderer.manifest).place(moved)
    assert window != HOME
    assert np.array_equal(frame.image, renderer.render(still).image)
    assert not np.array_equal(frame.image, renderer.render(face(-0.4)).image)
    caplog.clear()
    shutil.rmtree(path)  # nothing is read again
    again = renderer.render_batch([moved, still])
    assert all(np.array_equal(one.image, frame.image) for one in again)
    assert not caplog.records
    renderer.close()
