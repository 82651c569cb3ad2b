# SPDX-License-Identifier: Apache-2.0
"""An avatar on an imported face model: from the file to pictures, and what says it is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from styleavatar_core.avatar.bundle import read_bundle
from styleavatar_core.cli.main import build_app
from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.engine.avatar_renderer import AvatarRenderer
from styleavatar_core.errors import AssetError
from styleavatar_core.face3d.camera import parameters_in_crop
from styleavatar_core.face3d.library import find_face_model, models_folder
from styleavatar_core.provenance.consent import make_consent
from styleavatar_core.sample.clip import SampleClip
from styleavatar_core.training.create import create_avatar
from styleavatar_core.training.measure import PICTURE_PX, drive_avatar
from styleavatar_core.types import Progress
from tests.fakes.faceverse import faceverse_contents, write_faceverse

CONSENT = make_consent("A painted photograph moves; nobody is asked.", subject="nobody")


def test_an_imported_model_carries_an_avatar_from_video_to_picture(
    tmp_path: Path, sample_clip: SampleClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STYLEAVATAR_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = write_faceverse(tmp_path / "faceverse.npy", faceverse_contents("v3"))
    result = CliRunner().invoke(build_app(), ["import-faceverse", str(file)])
    assert "--face-model faceverse-v3" in result.output
    told: list[Progress] = []
    path = create_avatar(
        sample_clip.path,
        tmp_path / "work",
        tmp_path / "avatar",
        preset="nano",
        minutes=0.01,
        consent=CONSENT,
        face_model="faceverse-v3",
        frame_cap=60,
        on_progress=told.append,
    )
    # Before any training, what the clip lacks is said and stored: this one is 6 s long.
    tracked = [event for event in told if event.stage == "tracking"]
    assert "Film one to two minutes." in tracked[-1].message
    assert "Film again:" in (tmp_path / "work/dataset/capture/report.txt").read_text()
    model, manifest = find_face_model("faceverse-v3"), read_bundle(path).manifest
    dataset = AvatarDataset(tmp_path / "work" / "dataset")
    for recorded in (manifest, dataset.info):
        assert (recorded.model_id, recorded.model_digest) == ("faceverse-v3", model.digest)
    assert len(manifest.identity) == model.identity_basis.shape[2]

    kept = read_bundle(path).held_out()  # of 12 frames
    assert len(kept) == len(dataset.held_out_indices) == manifest.source.held_out_frame_count
    last = parameters_in_crop(dataset.parameters[-1], manifest.crop)
    np.testing.assert_array_equal(kept[-1].expression, last.expression)
    np.testing.assert_allclose(kept[-1].translation, last.translation, atol=1e-6)

    renderer = AvatarRenderer(path, backend="torch")
    frames = [parameters_in_crop(dataset.parameters[i], manifest.crop) for i in (0, 30)]
    pictures = [renderer.render(frame).image for frame in frames]
    assert pictures[0].shape == (128, 128, 3)
    assert not np.array_equal(*pictures)
    driven = drive_avatar(renderer, sample_clip.path, frame_limit=4)
    assert {frame.model_id for frame in driven.wanted} == {"faceverse-v3"}
    assert [picture.shape for picture in driven.pictures] == [(PICTURE_PX, 2 * PICTURE_PX, 3)]
    renderer.close()

    (models_folder() / "faceverse-v3.safetensors").unlink()
    with pytest.raises(AssetError, match="import-faceverse"):
        AvatarRenderer(path, backend="torch")
