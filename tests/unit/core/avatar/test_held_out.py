# SPDX-License-Identifier: Apache-2.0
"""Faces of held-out frames in a bundle: kept as they were, refused if they are something else."""

from pathlib import Path

import numpy as np
import pytest

from styleavatar_core.avatar.bundle import AvatarBundle, read_bundle, write_bundle
from styleavatar_core.avatar.held_out import MOST_FRAMES, pack_held_out, unpack_held_out
from styleavatar_core.errors import AssetError
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.types import FaceParameters
from tests.fakes.nano_bundle import write_nano_bundle

MODEL = builtin_model()
EXPRESSIONS = MODEL.expression_basis.shape[2]


def faces(count: int) -> list[FaceParameters]:
    """Returns faces that differ."""
    rng = np.random.default_rng(0)
    return [
        FaceParameters(
            MODEL.model_id,
            np.array([1, 0, 0, 0], np.float32),
            np.array([0.01 * index, 0, 0], np.float32),
            0.4,
            rng.random(EXPRESSIONS, np.float32),
            np.zeros((2, 2), np.float32),
            capture_time_s=index / 25,
            frame_index=index,
        )
        for index in range(count)
    ]


def with_held_out(path: Path, frames: list[FaceParameters]) -> AvatarBundle:
    """Returns an untrained avatar that has these frames."""
    plain = read_bundle(write_nano_bundle(path / "plain"))
    written = write_bundle(
        path / "avatar",
        plain.manifest,
        generator=plain.generator(),
        features=plain.features(),
        preview_jpeg=plain.preview(),
        held_out=frames,
    )
    return read_bundle(written)


def test_frames_come_back_evenly_spread_and_without_their_times(tmp_path: Path) -> None:
    given = faces(100)
    bundle = with_held_out(tmp_path, given)
    kept = bundle.held_out()
    assert len(kept) == MOST_FRAMES
    for ours, theirs in ((kept[0], given[0]), (kept[-1], given[-1])):
        np.testing.assert_array_equal(ours.expression, theirs.expression)
        np.testing.assert_array_equal(ours.translation, theirs.translation)
        assert ours.scale == pytest.approx(theirs.scale)
        assert (ours.capture_time_s, ours.frame_index) == (0, 0)
    assert bundle.manifest.files["held_out.safetensors"].size_bytes < 20_000


def test_a_bundle_without_them_has_none(tmp_path: Path) -> None:
    bundle = with_held_out(tmp_path, [])
    assert "held_out.safetensors" not in bundle.manifest.files
    assert bundle.held_out() == []


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    path = with_held_out(tmp_path, faces(2)).path
    file = path / "held_out.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(AssetError, match="its sha256 differs"):
        read_bundle(path, verify=False).held_out()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("scale", None),
        ("scale", np.zeros((), np.float32)),
        ("scale", np.empty(0, np.float32)),
        ("scale", np.ones(3, np.float32)),  # of more frames than the rest
        ("scale", np.full(2, -1, np.float32)),
        ("rotation", np.ones((2, 4), np.float32)),  # no unit quaternions
        ("rotation", np.full((2, 4), np.nan, np.float32)),
        ("expression", np.ones((2, EXPRESSIONS + 1), np.float32)),
        ("translation", np.ones((2, 3), np.float64)),
        ("eye_rotation", None),
    ],
)
def test_what_is_no_face_is_refused(name: str, values: np.ndarray | None) -> None:
    tensors = pack_held_out(faces(2))
    assert len(unpack_held_out(tensors, MODEL.model_id, EXPRESSIONS)) == 2
    del tensors[name]
    if values is not None:
        tensors[name] = values
    with pytest.raises(AssetError, match="create the avatar again"):
        unpack_held_out(tensors, MODEL.model_id, EXPRESSIONS)


def test_more_frames_than_are_kept_are_refused() -> None:
    tensors = pack_held_out(faces(1))
    many = {name: np.repeat(value, MOST_FRAMES + 1, axis=0) for name, value in tensors.items()}
    with pytest.raises(AssetError, match="1 to 32"):
        unpack_held_out(many, MODEL.model_id, EXPRESSIONS)
