# SPDX-License-Identifier: Apache-2.0
"""What is held out has no say in what is trained on; what was prepared otherwise is not reused."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.data.matting import RVM, SELFIE, ForegroundMatting
from styleavatar_core.data.portrait import choose_window
from styleavatar_core.data.video_writer import VideoWriter
from styleavatar_core.errors import ConflictError, InvalidInputError, TrainingCanceled
from styleavatar_core.face3d.builtin import BUILTIN_MODEL_ID, EARLIER_MODEL_ID
from styleavatar_core.face3d.library import find_face_model
from styleavatar_core.networks import GeneratorConfig, get_preset
from styleavatar_core.tracking.video import TrackedVideo
from styleavatar_core.training.dataset import prepare
from styleavatar_core.training.dataset.prepare import _choose_window, _fit_head, prepare_dataset
from styleavatar_core.types import FaceIdentity, Progress
from tests.fakes.prepared_clip import name_source, write_prepared_clip
from tests.unit.core.tracking.test_capture import film, lively


def test_the_window_is_where_the_training_frames_have_the_face() -> None:
    rng = np.random.default_rng(0)
    landmarks = rng.uniform(-30, 30, (100, 478, 3)).astype(np.float32) + [200, 180, 0]
    nobody = np.zeros(1, np.float32)
    identity = FaceIdentity("builtin-3", nobody, nobody)

    def chosen() -> object:
        tracked = TrackedVideo([None] * 100, identity, 25.0, 640, 360, landmarks)
        return _choose_window(tracked, list(range(80)))

    wanted = choose_window(landmarks[:80], 640, 360)
    assert chosen() == wanted
    landmarks[80:] += [150, 40, 0]  # the person moves aside once training is over
    assert chosen() == wanted
    assert choose_window(landmarks, 640, 360) != wanted


def test_fitting_the_head_can_be_stopped_between_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_prepared_clip(tmp_path)
    landmarks = np.zeros((len(clip), 478, 3), np.float32)
    nobody = FaceIdentity(clip.info.model_id, clip.info.face_identity.identity, np.zeros(1))
    tracked = TrackedVideo(clip.parameters, nobody, 25.0, 64, 64, landmarks)
    read = []

    def read_frames(_: Path) -> Iterator[tuple[int, float, np.ndarray]]:
        for index in range(len(clip)):
            read.append(index)
            yield index, index / 25.0, np.asarray(clip.frames[index])

    monkeypatch.setattr(prepare, "read_frames", read_frames)
    with pytest.raises(TrainingCanceled):
        _fit_head(
            tmp_path / "clip.mp4",
            clip.info.face_model(),
            tracked,
            list(clip.train_indices),
            clip.info.crop,
            None,
            lambda: len(read) > 3,
        )
    assert read == [0, 1, 2, 3]


def test_a_clip_of_few_frames_is_refused_before_it_is_tracked(
    tiny_config: GeneratorConfig, tmp_path: Path
) -> None:
    video = tmp_path / "clip.mp4"
    with VideoWriter(video, fps=10, width=64, height=64) as writer:
        for _ in range(50):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(InvalidInputError, match="50 frames, 10 per second") as caught:
        prepare_dataset(video, tmp_path / "dataset", tiny_config)
    assert caught.value.reason == "VIDEO_TOO_SHORT"


class Nobody(torch.nn.Module):
    """Stands for Robust Video Matting's network."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * 0


@pytest.mark.parametrize("before", ["given", "built-in"])
def test_a_dataset_of_another_matting_is_prepared_anew(
    tiny_config: GeneratorConfig, tmp_path: Path, before: str
) -> None:
    weights = tmp_path / "rvm.pt"
    own, other = (weights, None) if before == "given" else (None, weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the format that such networks have
        torch.jit.script(Nobody()).save(str(weights))
        matting = ForegroundMatting(own)
    matting.close()
    video = tmp_path / "clip.mp4"
    video.write_bytes(b"no video: whoever prepares it anew fails")
    folder = tmp_path / "dataset"
    cap = write_prepared_clip(folder).info.frame_cap
    name_source(folder, video, matting.name)
    reused = prepare_dataset(video, folder, tiny_config, frame_cap=cap, matting_weights=own)
    assert reused.info.matting == matting.name
    with pytest.raises(InvalidInputError):
        prepare_dataset(video, folder, tiny_config, frame_cap=cap, matting_weights=other)


class Other(NamedTuple):
    """What is asked for in a folder where something else is trained already."""

    preset: str = "nano"
    video: bytes = b"the video"
    cap: int = 100
    has_matting: bool = False
    told: str = ""


@pytest.mark.parametrize(
    "other",
    [
        Other(preset="lite", told="pixels of a picture: 128, now 256"),
        Other(video=b"another one", told="sha256 of the source"),
        Other(cap=50, told="most frames: 100, now 50"),
        Other(has_matting=True, told="matting: mediapipe-selfie-seg.*, now robust-video-matting"),
    ],
)
def test_what_is_trained_on_is_not_replaced(tmp_path: Path, other: Other) -> None:
    video, folder, checkpoint = (tmp_path / name for name in ("clip.mp4", "dataset", "checkpoint"))
    write_prepared_clip(folder, size_px=128)
    video.write_bytes(b"the video")
    name_source(folder, video, SELFIE)
    checkpoint.touch()
    before = {path: path.read_bytes() for path in folder.iterdir()}

    def prepared(given: Other) -> AvatarDataset:
        video.write_bytes(given.video)
        return prepare_dataset(
            video,
            folder,
            get_preset(given.preset),
            frame_cap=given.cap,
            matting_weights=tmp_path / "rvm.pt" if given.has_matting else None,
            checkpoint=checkpoint,
        )

    with pytest.raises(
        ConflictError, match=rf"training on disc\.mp4.*{other.told}.*another folder"
    ):
        prepared(other)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert len(prepared(Other())) == 20  # it goes on with what it was begun with


def test_a_training_goes_on_with_its_masks_when_what_made_them_is_gone(tmp_path: Path) -> None:
    video, folder, checkpoint = (tmp_path / name for name in ("clip.mp4", "dataset", "checkpoint"))
    write_prepared_clip(folder, size_px=128)
    video.write_bytes(b"the video")
    name_source(folder, video, RVM)
    checkpoint.touch()
    for weights in (None, tmp_path / "gone.pt"):
        dataset = prepare_dataset(
            video,
            folder,
            get_preset("nano"),
            frame_cap=100,
            matting_weights=weights,
            checkpoint=checkpoint,
        )
        assert dataset.info.matting == RVM


def test_a_training_goes_on_with_the_built_in_face_model_of_its_time(tmp_path: Path) -> None:
    video, folder, checkpoint = (tmp_path / name for name in ("clip.mp4", "dataset", "checkpoint"))
    write_prepared_clip(folder, size_px=128)
    video.write_bytes(b"the video")
    name_source(folder, video, SELFIE)
    path = folder / "dataset.json"
    earlier = {
        "model_id": EARLIER_MODEL_ID,
        "model_digest": find_face_model(EARLIER_MODEL_ID).digest,
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | earlier))

    def prepared(name: str) -> AvatarDataset:
        preset = get_preset("nano")
        return prepare_dataset(
            video, folder, preset, face_model=name, frame_cap=100, checkpoint=checkpoint
        )

    checkpoint.touch()
    assert prepared("").info.model_id == EARLIER_MODEL_ID
    with pytest.raises(ConflictError, match=f"face model: {EARLIER_MODEL_ID}, now"):
        prepared(BUILTIN_MODEL_ID)
    checkpoint.unlink()
    with pytest.raises(InvalidInputError):  # with no training it is prepared with today's
        prepared("")


def test_a_capture_report_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("this is no folder")
    said: list[Progress] = []
    prepare._report_capture(film(lively), tmp_path / "taken", said.append)
    assert [progress.message for progress in said] == ["the clip shows all that an avatar needs"]
