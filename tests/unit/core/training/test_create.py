# SPDX-License-Identifier: Apache-2.0
"""What a bundle says of its training is what was done, also when it is made again."""

from pathlib import Path

import pytest
from safetensors.torch import save_file

from styleavatar_core.avatar.bundle import read_bundle
from styleavatar_core.errors import AssetError, ConflictError, NotFoundError
from styleavatar_core.networks import GeneratorConfig
from styleavatar_core.provenance.consent import make_consent
from styleavatar_core.training.checks import check_before_preparing
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.create import DATASET_FOLDER, create_avatar
from styleavatar_core.training.record.checkpoint import CHECKPOINT_NAME, TRAINING_FOLDER
from tests.fakes.prepared_clip import name_source, write_prepared_clip
from tests.fakes.vgg19 import narrow_vgg19

CONFIG = TrainConfig(step_count=1, batch_size=1, adversarial_start=1.0)


@pytest.mark.parametrize(
    ("has_weights", "name"), [(True, "vgg19"), (False, "multi-scale structure")]
)
def test_another_perceptual_loss_is_refused_and_not_written_down(
    tmp_path: Path, has_weights: bool, name: str
) -> None:
    weights, video, folder = (tmp_path / part for part in ("vgg19.safetensors", "clip.mp4", "work"))
    save_file(dict(narrow_vgg19().state_dict()), weights)
    video.write_bytes(b"its frames are prepared already")
    cap = write_prepared_clip(folder / DATASET_FOLDER, size_px=128).info.frame_cap
    name_source(folder / DATASET_FOLDER, video, "mediapipe-selfie-segmentation")

    def created(perceptual_weights: Path | None) -> str:
        path = create_avatar(
            video,
            folder,
            tmp_path / "avatar",
            preset="nano",
            consent=make_consent("A disc; nobody is asked.", subject="nobody"),
            config=CONFIG,
            frame_cap=cap,
            perceptual_weights=perceptual_weights,
        )
        return read_bundle(path).manifest.methods.perceptual_loss

    own, other = (weights, None) if has_weights else (None, weights)
    assert created(own).startswith(name)
    with pytest.raises(ConflictError, match=rf"trained with .*\'{name}.*another folder"):
        created(other)
    assert created(own).startswith(name)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("start", "nothing to start from at .*gone.* correct --from"),
        ("perceptual_weights", "no file .*gone.*, given for VGG19 weights"),
        ("matting_weights", "no file .*gone.*, given for Robust Video Matting"),
    ],
)
def test_typing_errors_are_noticed_before_the_video_is_read(
    tmp_path: Path, option: str, told: str
) -> None:
    with pytest.raises((AssetError, NotFoundError), match=told):
        create_avatar(
            tmp_path / "never read.mp4",
            tmp_path / "work",
            tmp_path / "avatar",
            consent=make_consent("A disc; nobody is asked.", subject="nobody"),
            **{option: tmp_path / "gone"},
        )
    assert not list(tmp_path.iterdir())


def test_a_training_that_is_begun_needs_no_matting_and_no_start(
    tmp_path: Path, tiny_config: GeneratorConfig
) -> None:
    gone = {"matting_weights": tmp_path / "gone", "start": tmp_path / "gone"}
    with pytest.raises(AssetError, match="Robust Video Matting"):
        check_before_preparing(
            tmp_path, tiny_config, TrainConfig(), matting_weights=tmp_path / "gone"
        )
    (tmp_path / TRAINING_FOLDER).mkdir()
    (tmp_path / TRAINING_FOLDER / CHECKPOINT_NAME).touch()
    check_before_preparing(tmp_path, tiny_config, TrainConfig(), **gone)
