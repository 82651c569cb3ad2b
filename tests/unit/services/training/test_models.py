# SPDX-License-Identifier: Apache-2.0
"""The trainer makes avatars with the models of others that its settings name."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import save_file

from services.common.jobs import TrainingJob
from services.training.settings import TrainingSettings
from services.training.tasks import make_avatar, models_of_others
from styleavatar_core.avatar.bundle import read_bundle
from styleavatar_core.data.matting import RVM, SELFIE
from styleavatar_core.errors import AssetError, ConflictError
from styleavatar_core.provenance.consent import make_consent
from styleavatar_core.training.create import DATASET_FOLDER
from styleavatar_core.training.dataset.prepare import DEFAULT_FRAME_CAP
from tests.fakes.prepared_clip import name_source, write_prepared_clip
from tests.fakes.vgg19 import narrow_vgg19

VGG19, MATTING = "STYLEAVATAR_TRAINING_VGG19_WEIGHTS", "STYLEAVATAR_TRAINING_MATTING_WEIGHTS"
NOBODY = SimpleNamespace(on_progress=lambda _: None, should_stop=lambda: False)


def made(folder: Path) -> str:
    """Makes a job's avatar of a prepared clip; returns what its bundle says of the loss."""
    video, dataset = folder / "clip.mp4", folder / "work" / DATASET_FOLDER
    if not dataset.exists():
        video.write_bytes(b"its frames are prepared already")
        write_prepared_clip(dataset, size_px=128)
        name_source(dataset, video, SELFIE)
        info = json.loads((dataset / "dataset.json").read_text())
        (dataset / "dataset.json").write_text(json.dumps(info | {"frame_cap": DEFAULT_FRAME_CAP}))
    job = TrainingJob(
        job_id="job",
        avatar_id="avatar",
        preset="nano",
        minutes=0.001,
        consent=make_consent("A disc; nobody is asked.", subject="nobody"),
        created_time=datetime.now(UTC),
    )
    bundle = make_avatar(job, video, folder / "work", NOBODY)
    return read_bundle(bundle).manifest.methods.perceptual_loss


def test_weights_that_settings_name_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "vgg19.safetensors"
    save_file(dict(narrow_vgg19().state_dict()), weights)
    monkeypatch.setenv(VGG19, str(weights))
    assert made(tmp_path) == "vgg19"
    monkeypatch.delenv(VGG19)
    with pytest.raises(ConflictError, match="trained with the perceptual loss 'vgg19'"):
        made(tmp_path)


@pytest.mark.parametrize("variable", [VGG19, MATTING])
def test_weights_that_are_missing_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "gone.pt"))
    with pytest.raises(AssetError, match=r"no file .*gone\.pt"):
        made(tmp_path)


def test_a_training_under_way_keeps_what_it_was_begun_with(tmp_path: Path) -> None:
    given = {"vgg19_weights": tmp_path / "vgg19.pth", "matting_weights": tmp_path / "rvm.pt"}
    settings = TrainingSettings(face_model="faceverse-v3", **given)
    assert set(models_of_others(settings, tmp_path / "new").values()) == {
        "faceverse-v3",
        *given.values(),
    }
    assert "no VGG19" in made(tmp_path)
    begun = {"face_model": "builtin-3", "perceptual_weights": None, "matting_weights": None}
    assert models_of_others(settings, tmp_path / "work") == begun
    name_source(tmp_path / "work" / DATASET_FOLDER, tmp_path / "clip.mp4", RVM)
    kept = models_of_others(settings, tmp_path / "work")["matting_weights"]
    assert kept == given["matting_weights"]
