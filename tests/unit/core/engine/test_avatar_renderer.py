# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest

from styleavatar_core.avatar.bundle import read_bundle, write_bundle
from styleavatar_core.engine.avatar_renderer import AvatarRenderer
from styleavatar_core.errors import AssetError, InvalidInputError, NotFoundError
from styleavatar_core.types import FaceParameters
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
