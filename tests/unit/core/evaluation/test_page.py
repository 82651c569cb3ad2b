# SPDX-License-Identifier: Apache-2.0
"""The report: whole, self-contained, honest about what is missing."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from styleavatar_core.avatar.bundle import read_bundle, write_bundle
from styleavatar_core.cli import evaluate
from styleavatar_core.cli.main import build_app
from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.data.picture import encode_jpeg
from styleavatar_core.data.video_writer import VideoWriter
from styleavatar_core.errors import (
    ConflictError,
    FaceNotFoundError,
    InvalidInputError,
    NotFoundError,
)
from styleavatar_core.evaluation.charts import line_chart
from styleavatar_core.evaluation.evaluate import evaluate_frames, held_out_truth
from styleavatar_core.evaluation.page import _LOSSES, Driven, ReportContent, write_page
from styleavatar_core.tracking.tracker import Tracker
from styleavatar_core.types import ByteArray, FaceParameters
from tests.fakes.nano_bundle import write_nano_bundle
from tests.fakes.prepared_clip import write_prepared_clip

NAN = float("nan")


def test_a_chart_breaks_where_values_are_missing() -> None:
    values = [1.0, 2.0, NAN, 40.0, 3.0]
    svg = line_chart([0, 1, 2, 3, 4], {"a <b>": values}, x_label="PSNR & more")
    ElementTree.fromstring(svg)
    (drawn,) = re.findall(r'<path d="([^"]*)"[^>]*style="fill: none; stroke: #1f77b4', svg.decode())
    assert re.sub(r"[\d.\s]", "", drawn) == "MLML"
    heights = [float(point.split()[1]) for point in re.split("[ML]", drawn)[1:]]
    assert heights[2] < heights[1] < heights[0]  # larger values are higher up


def test_nothing_to_draw_gives_no_chart() -> None:
    assert line_chart([0, 1], {"a": [NAN, 1.0]}, x_label="x") == b""
    assert line_chart([], {}, x_label="x") == b""
    assert b"<svg" in line_chart([0, 1], {"a": [2.0, 2.0]}, x_label="x")


def test_every_loss_has_a_colour_of_its_own() -> None:
    svg = line_chart([0, 1], {name: [0.5, k] for k, name in enumerate(_LOSSES)}, x_label="minutes")
    colours = set(re.findall(rb"fill: none; stroke: (#\w+); stroke-width: 1.5", svg))
    assert len(colours) == len(_LOSSES)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `train` leaves behind, with networks that never were trained."""
    folder = tmp_path_factory.mktemp("trained") / "<Ada> & co"
    folder.mkdir()
    dataset = write_prepared_clip(folder / "dataset", size_px=128, frame_count=16, train_count=12)
    bundle = read_bundle(write_nano_bundle(folder / "first", window=dataset.info.window))
    picture = encode_jpeg(np.full((128, 128, 3), 90, np.uint8))
    write_bundle(
        folder / "avatar",
        bundle.manifest,
        generator=bundle.generator(),
        features=bundle.features(),
        preview_jpeg=picture,
    )
    shutil.rmtree(folder / "first")
    rows = [
        {"step": k, "elapsed_s": 30.0 * k, "l1": 1 / (k + 1), "psnr_db": 15.0 + k} for k in range(5)
    ]
    (folder / "training").mkdir()
    (folder / "training" / "training.jsonl").write_text(
        "\n".join([*map(json.dumps, rows), '{"step": 5, "elap'])  # as a crash leaves it
    )
    return folder


def test_evaluate_writes_figures_and_a_self_contained_page(trained: Path) -> None:
    arguments = ["evaluate", str(trained), "--backend", "torch", "--limit", "3"]
    result = CliRunner().invoke(build_app(), arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "lpips not measured: no weights given" in " ".join(result.output.split())
    figures = json.loads((trained / "evaluation.json").read_text())
    assert {"psnr_db", "ssim", "no_background_psnr_db", "flicker", "nearest_rotation_std"} <= set(
        figures
    )
    assert all(np.isfinite(value) for value in figures.values())
    page = (trained / "evaluation.html").read_text()
    assert f"{figures['psnr_db']:.1f} dB" in page
    assert "&lt;Ada&gt; &amp; co" in page
    assert "LPIPS not measured" in page
    assert "frames of its own video" in page
    assert "larger" not in page
    assert page.count("data:image/jpeg") == 4  # the avatar and three sheets
    assert page.count("data:image/svg+xml") >= 5  # quality, and two of the training
    training = page.split("<h2>Training</h2>")[1].split("<h2>")[0]
    captions = re.findall(r"<figcaption>(.*?)\s*</figcaption>", training)
    assert captions[1] == "PSNR of the watched frames, dB"
    assert set(re.findall(r'(?:src|href)="(.{15})', page)) == {"data:image/jpeg", "data:image/svg+"}
    assert "url(" not in page
    assert (trained / "evaluation.jpg").stat().st_size > 1000


def test_what_comes_out_is_tracked_at_the_times_of_the_clip(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[float] = []
    track = Tracker.track

    def record(self: Tracker, frame: ByteArray, time_s: float, index: int) -> FaceParameters | None:
        times.append(time_s)
        return track(self, frame, time_s, index)

    monkeypatch.setattr(Tracker, "track", record)
    arguments = ["evaluate", str(trained), "--backend", "torch", "--html", str(tmp_path / "p.html")]
    CliRunner().invoke(build_app(), arguments, catch_exceptions=False)
    assert times == [index / 25 for index in range(12, 16)]


def test_what_was_not_measured_has_neither_card_nor_chart(trained: Path, tmp_path: Path) -> None:
    dataset = AvatarDataset(trained / "dataset")
    evaluation = evaluate_frames(
        dataset, lambda index: (held_out_truth(dataset, index), np.zeros((128, 128), np.uint8))
    )
    moves = np.linspace(0.0, 1.0, 5)
    figures = {"rotation_r": 0.9, "mouth_r": 0.8, "gaze_r": 0.7}  # of nameless coefficients
    series = dict.fromkeys(("pitch", "yaw", "mouth", "gaze"), (moves, moves**2))
    manifest = read_bundle(trained / "avatar").manifest
    driven = [Driven("a nameless driver", figures, series), Driven("nobody", figures, {})]
    content = ReportContent("Ada", manifest, evaluation, {}, *[b"jpeg"] * 4, driven=driven)
    page = write_page(content, tmp_path / "page.html").read_text()
    first, second = page.split("<h2>Control: ")[1:]
    for name in ("yaw, degrees", "pitch, degrees", "mouth, mm", "gaze, degrees"):
        assert f"<figcaption>{name}" in first
    assert first.count("<img") == 4
    assert "<img" not in second
    for section in (first, second):
        assert "<span>mouth opening</span>" in section
        assert "<span>smile</span>" not in section
        assert "<span>lids</span>" not in section


def test_what_ended_a_training_and_what_went_wrong_is_shown(trained: Path, tmp_path: Path) -> None:
    dataset = AvatarDataset(trained / "dataset")
    evaluation = evaluate_frames(
        dataset, lambda index: (held_out_truth(dataset, index), np.zeros((128, 128), np.uint8))
    )
    back = {"step": 300, "back_to_step": 250}
    recoveries = [back | {"cause": cause} for cause in ("loss rose", "loss rose", "not finite")]
    training = {"steps": 900, "minutes": 12.0, "stopped_by": "plateau", "recoveries": recoveries}
    manifest = read_bundle(trained / "avatar").manifest.model_copy(update={"training": training})
    content = ReportContent("Ada", manifest, evaluation, {}, *[b"jpeg"] * 4)
    page = write_page(content, tmp_path / "page.html").read_text()
    assert "900 steps in 12.0 minutes, ended by plateau" in page
    assert "3 times to a good checkpoint (loss rose, not finite)" in page


def test_evaluate_refuses_what_does_not_belong_together(trained: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(trained / "avatar", alone / "avatar")
    with pytest.raises(NotFoundError, match=r"styleavatar train.*--driver"):
        CliRunner().invoke(build_app(), ["evaluate", str(alone)], catch_exceptions=False)
    shutil.copytree(trained / "dataset", alone / "dataset")
    info = alone / "dataset" / "dataset.json"
    own, arguments = json.loads(info.read_text()), ["evaluate", str(alone), "--backend", "torch"]
    window = [0.0, 0.1, own["window"][2]]
    for changes, told in (
        ({"source_sha256": "1" * 64}, "was not trained on the video"),
        ({"image_size_px": 64}, "has pictures of 128 pixels, the dataset pictures of 64 pixels"),
        ({"model_id": "builtin-2"}, "the face model 'builtin-3', the dataset .* 'builtin-2'"),
        ({"window": window}, r"the portrait window .*, the dataset .*\(0.0, 0.1, .* train` or"),
    ):
        info.write_text(json.dumps(own | changes))
        with pytest.raises(ConflictError, match=told):
            CliRunner().invoke(build_app(), arguments, catch_exceptions=False)


def test_what_was_measured_is_kept_where_no_page_can_be_written(
    trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("this is no folder")
    options = ["--limit", "2", "--json", str(tmp_path / "figures.json")]
    arguments = ["evaluate", str(trained), "--backend", "torch", *options]
    page = str(tmp_path / "taken" / "page.html")
    result = CliRunner().invoke(build_app(), [*arguments, "--html", page])
    assert isinstance(result.exception, OSError)
    assert "psnr_db" in json.loads((tmp_path / "figures.json").read_text())


def test_a_driver_without_a_face_is_refused_by_name(trained: Path, tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "wall.mp4", 25.0, 128, 128) as writer:
        for level in range(0, 60, 10):
            writer.write(np.full((128, 128, 3), level, np.uint8))
    arguments = ["evaluate", str(trained), "--backend", "torch"]
    with pytest.raises(FaceNotFoundError, match=r"wall\.mp4"):
        CliRunner().invoke(
            build_app(),
            [*arguments, "--driver", str(tmp_path / "wall.mp4")],
            catch_exceptions=False,
        )


@pytest.mark.parametrize("name", ["ada", "ada.zip"])
def test_figures_of_a_driven_bundle_go_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    bundle = write_nano_bundle(tmp_path / name)  # its pictures show no face, so none is driven
    driven = Driven("driven by a.mp4", {"yaw_r": 0.5, "gaze_r": NAN}, {}, b"")
    monkeypatch.setattr(evaluate, "_drive", lambda *_: driven)
    arguments = ["evaluate", str(bundle), "--backend", "torch", "--driver", "a.mp4"]
    result = CliRunner().invoke(build_app(), arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {name, "ada.control.json"}
    assert json.loads((tmp_path / "ada.control.json").read_text()) == {"yaw_r": 0.5}
    assert not list(bundle.glob("*control.json"))


@pytest.mark.parametrize("option", ["--html", "--lpips-weights", "--fid-weights"])
def test_what_only_a_dataset_gives_is_refused_for_a_bundle_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    bundle = write_nano_bundle(tmp_path / "ada.zip")
    monkeypatch.setattr(evaluate, "_drive", lambda *_: Driven("a", {"yaw_r": 0.5}, {}, b""))
    arguments = ["evaluate", str(bundle), "--backend", "torch", "--driver", "a.mp4"]
    with pytest.raises(InvalidInputError, match=rf"{option}: only with the folder that .*train"):
        CliRunner().invoke(
            build_app(), [*arguments, option, str(tmp_path / "x")], catch_exceptions=False
        )
    assert [path.name for path in tmp_path.iterdir()] == ["ada.zip"]
