# SPDX-License-Identifier: Apache-2.0
"""A smaller avatar learns from the pictures of a larger one."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from styleavatar_core.avatar.bundle import read_bundle, write_bundle
from styleavatar_core.avatar.statistics import ParameterStatistics
from styleavatar_core.cli.main import build_app
from styleavatar_core.engine.avatar_renderer import AvatarRenderer
from styleavatar_core.errors import ConflictError, InvalidInputError, TrainingCanceled
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.camera import parameters_in_crop
from styleavatar_core.networks import get_preset
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.dataset.drawn import draw_dataset
from styleavatar_core.training.distill import distill
from styleavatar_core.types import CropBox, FaceParameters
from tests.fakes.nano_bundle import write_nano_bundle

ROOT = Path(__file__).resolve().parents[4]
CONFIG = TrainConfig(step_count=15, batch_size=4, adversarial_start=1.0, evaluation_share=0.5)
FRAMES = 20
WINDOW = CropBox(0.1, -0.2, 0.5)


def small_movements() -> ParameterStatistics:
    rng = np.random.default_rng(0)

    def face() -> FaceParameters:
        turn = rng.normal(0, 0.1, 3)
        rotation = np.array([1, *turn]) / np.sqrt(1 + turn @ turn)
        return FaceParameters(
            builtin_model().model_id,
            rotation.astype(np.float32),
            np.array([*rng.normal(0, 0.05, 2), 0], np.float32),
            float(rng.normal(0.4, 0.02)),
            rng.uniform(0, 0.5, 52).astype(np.float32),
            rng.normal(0, 0.1, (2, 2)).astype(np.float32),
        )

    return ParameterStatistics.from_parameters([face() for _ in range(20)], WINDOW)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    plain = read_bundle(write_nano_bundle(folder / "plain", seed=1))
    window = (WINDOW.center_x, WINDOW.center_y, WINDOW.half_size)
    manifest = plain.manifest.model_copy(
        update={
            "statistics": small_movements().to_dict(),
            "window": window,
            "methods": plain.manifest.methods.model_copy(update={"perceptual_loss": "vgg19"}),
        }
    )
    path = write_bundle(
        folder / "avatar",
        manifest,
        generator=plain.generator(),
        features=plain.features(),
        preview_jpeg=b"-",
    )
    return read_bundle(path)


@pytest.fixture(scope="module")
def drawn(teacher, tiny_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "dataset"
    return draw_dataset(teacher, folder, tiny_config, frame_count=FRAMES, backend="torch")


def student_of(teacher, drawn, tiny_config, folder, config):
    shutil.copytree(drawn.folder, folder / "dataset")
    return distill(
        teacher.path,
        folder,
        folder / "avatar",
        generator_config=tiny_config,
        frame_count=FRAMES,
        backend="torch",
        config=config,
    )


def test_a_student_is_nearer_to_its_teacher_than_an_untrained_one(
    teacher, drawn, tiny_config, tmp_path
):
    written = (drawn.folder / "frames.npy").stat().st_mtime_ns
    manifests = [
        read_bundle(student_of(teacher, drawn, tiny_config, tmp_path / name, config)).manifest
        for name, config in (("trained", CONFIG), ("untrained", replace(CONFIG, step_count=1)))
    ]
    trained, untrained = (manifest.metrics["teacher_psnr_db"] for manifest in manifests)
    assert trained > untrained + 3
    assert (drawn.folder / "frames.npy").stat().st_mtime_ns == written
    student = manifests[0]
    assert student.training["distilled_from"] == {"preset": "nano", "digest": teacher.digest}
    assert student.preset == "tiny"
    assert student.image_size_px == 64
    for name in ("consent", "source", "statistics", "window", "identity"):
        assert getattr(student, name) == getattr(teacher.manifest, name)
    assert student.methods.landmarks == teacher.manifest.methods.landmarks
    assert "structure" in student.methods.perceptual_loss  # not what its teacher had


def test_pictures_are_the_teachers_and_faces_where_they_say(teacher, drawn):
    renderer = AvatarRenderer(teacher.path, backend="torch", thread_count=1)
    for index in (0, FRAMES - 1):
        in_window = parameters_in_crop(drawn.parameters[index], drawn.info.crop)
        picture = renderer.render(in_window).image
        wanted = cv2.resize(picture, (64, 64), interpolation=cv2.INTER_AREA)
        assert np.abs(drawn.window(drawn.frames[index]).astype(int) - wanted).max() <= 1
    assert drawn.window(drawn.valid).all()
    assert drawn.valid.sum() == 64 * 64  # what the teacher does not show, nobody learns


def test_a_student_is_measured_against_its_teacher(teacher, drawn, tiny_config, tmp_path):
    student_of(teacher, drawn, tiny_config, tmp_path, replace(CONFIG, step_count=1))
    command = ["evaluate", str(tmp_path), "--backend", "torch"]
    CliRunner().invoke(build_app(), command, catch_exceptions=False)
    page = " ".join((tmp_path / "evaluation.html").read_text().split())
    assert f"a larger avatar (nano, sha256 {teacher.digest[:12]}…), not the video" in page
    assert "How near this avatar comes to the larger one" in page
    info = tmp_path / "dataset" / "dataset.json"
    info.write_text(info.read_text().replace(teacher.digest, "1" * 64))
    with pytest.raises(ConflictError, match="was not trained on the video or the pictures"):
        CliRunner().invoke(build_app(), command, catch_exceptions=False)


def test_pictures_are_drawn_once(teacher, drawn, tiny_config, tmp_path):
    folder = shutil.copytree(drawn.folder, tmp_path / "dataset")
    settings = {"frame_count": FRAMES, "backend": "torch", "should_stop": lambda: True}
    assert len(draw_dataset(teacher, folder, tiny_config, **settings)) == FRAMES
    (tmp_path / "checkpoint").touch()
    settings["checkpoint"] = tmp_path / "checkpoint"
    with pytest.raises(ConflictError, match=r"matting: .* seed 0, now .* seed 1.*another folder"):
        draw_dataset(teacher, folder, tiny_config, seed=1, **settings)
    assert len(draw_dataset(teacher, folder, tiny_config, **settings)) == FRAMES
    renamed = read_bundle(shutil.copytree(teacher.path, tmp_path / "of-another-name"))
    assert len(draw_dataset(renamed, folder, tiny_config, **settings)) == FRAMES
    (tmp_path / "checkpoint").unlink()
    with pytest.raises(TrainingCanceled):
        draw_dataset(teacher, folder, tiny_config, seed=1, **settings)
    assert not (folder / "dataset.json").exists()  # half of one, half of the other


def test_two_processes_make_one_student(teacher, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "styleavatar_core.cli.main", "distill"]
    command += [str(teacher.path), str(tmp_path), "--frames", "5", "--minutes", "0.01"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Avatar:") == 1
    assert read_bundle(tmp_path / "avatar").manifest.training["steps"] > 0


@pytest.mark.parametrize(
    ("preset", "frame_count", "message"),
    [("lite", 20, "draws 128 pixels, fewer than the 256 of 'lite'"), ("nano", 3, "5 or more")],
)
def test_what_cannot_be_learned_from_is_refused(teacher, tmp_path, preset, frame_count, message):
    with pytest.raises(InvalidInputError, match=message):
        draw_dataset(teacher, tmp_path, get_preset(preset), frame_count=frame_count)
