# SPDX-License-Identifier: Apache-2.0
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from styleavatar_core.errors import InvalidInputError, NotFoundError, TrainingCanceled
from styleavatar_core.networks import get_preset
from styleavatar_core.training import losses
from styleavatar_core.training.avatar_networks import AvatarNetworks
from styleavatar_core.training.clock import Clock
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.loop import load_average, train
from styleavatar_core.training.pretrain import pretrain
from styleavatar_core.training.samples.batches import BatchSampler
from styleavatar_core.training.samples.clips import Clip
from styleavatar_core.training.schedule import phase_at
from styleavatar_core.training.trainer import Trainer
from tests.fakes.prepared_clip import write_prepared_clip

CONFIG = TrainConfig(
    step_count=6, adversarial_start=0.5, static_share=0.5, shared_identity_share=0.5
)


@pytest.fixture(scope="module")
def other_dataset(tmp_path_factory):
    return write_prepared_clip(tmp_path_factory.mktemp("other"), frame_count=25, train_count=20)


@pytest.fixture(scope="module")
def checkpoint(tiny_dataset, other_dataset, tiny_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretraining") / "training"
    return train([tiny_dataset, other_dataset], tiny_config, CONFIG, folder)


def test_clips_take_turns_and_share_an_identity_in_some_steps(
    tiny_dataset, other_dataset, tiny_config
):
    clips = [Clip(tiny_dataset), Clip(other_dataset)]
    sampler = BatchSampler(clips, tiny_config, TrainConfig(shared_identity_share=0.3))
    batches = [sampler.at_step(step) for step in range(60)]
    assert [batch.clip for batch in batches] == [0, 1] * 30
    assert 6 < sum(batch.has_shared_identity for batch in batches) < 30
    # Neighbouring turns of a clip go on in its order of frames: an epoch shows each frame once.
    times = torch.cat([sampler.at_step(step).style_time for step in range(1, 21, 2)])
    assert times.max() < 20 / 25  # the other clip's training part


@pytest.mark.parametrize("clip_count", [2, 6])
def test_the_gradient_penalty_sees_all_clips_alike(
    tiny_dataset, tiny_config, monkeypatch, clip_count
):
    penalized, penalty = [], losses.gradient_penalty

    def record(scores, image):
        penalized.append(batch.clip)
        return penalty(scores, image)

    monkeypatch.setattr(losses, "gradient_penalty", record)
    config = TrainConfig(step_count=100, batch_size=1, adversarial_start=0.0, r1_interval=4)
    trainer = Trainer(tiny_config, config, clip_count=clip_count)
    sampler = BatchSampler([Clip(tiny_dataset)] * clip_count, tiny_config, config)
    for step in range(8 * clip_count):
        batch = sampler.at_step(step)
        trainer.step(batch, None, phase_at(Clock(step=step), config), step)
    assert sorted(penalized) == sorted([*range(clip_count)] * 2)


def test_each_clip_has_maps_of_its_own(tiny_config):
    networks = AvatarNetworks(tiny_config, clip_count=2)
    with torch.no_grad():
        maps = [networks.static_maps(clip)[0].feature for clip in (0, 1)]
        shared = [networks.static_maps(clip, is_shared=True)[0].feature for clip in (0, 1)]
        alone = AvatarNetworks(tiny_config)
        alone.load_state_dict(
            {k: v for k, v in networks.state_dict().items() if "start" not in k}, strict=False
        )
        only = alone.static_maps()[0].feature
    assert not torch.allclose(*maps)
    assert torch.equal(*shared)
    assert torch.equal(only, shared[0])  # a new avatar starts from nobody in particular


def test_a_person_is_drawn_as_in_training_whoever_else_was_trained_on(tiny_published_config):
    def drawn(networks, clip=0):
        with torch.no_grad():
            return [maps.feature for maps in networks.static_maps(clip)]

    several = AvatarNetworks(tiny_published_config, clip_count=2)
    wanted = [drawn(several, clip) for clip in (0, 1, 0, 1)]
    several.eval()
    for clip in (0, 1):
        torch.testing.assert_close(drawn(several, clip), wanted[clip])
    # One person has running statistics, as published weights do.
    one = AvatarNetworks(tiny_published_config).eval()
    before = drawn(one)
    one.face.norm.running_var.fill_(4.0)
    assert not torch.allclose(drawn(one)[0], before[0])


def test_the_checkpoint_shows_both_rooms(checkpoint):
    starts = load_file(checkpoint)["module/average/background_start"]
    assert len(starts) == 2
    assert all(start.abs().max() > 0 for start in starts)


def test_a_new_avatar_takes_the_weights_and_not_the_faces(
    checkpoint, tiny_dataset, tiny_config, tmp_path
):
    config = replace(CONFIG, step_count=1, learning_rate=0.0, adversarial_start=1.0)
    work = checkpoint.parent.parent
    path = train([tiny_dataset], tiny_config, config, tmp_path, start=work)
    before, after = load_file(checkpoint), load_file(path)
    for name in ("face.input.constant", "generator.mask_conv.weight"):
        assert torch.equal(before[f"module/average/{name}"], after[f"module/networks/{name}"])
    _, clock = load_average(path, tiny_config)
    assert clock.started_from == work.name
    name = "module/networks/face_start"
    assert after[name].shape[0] == 1


def test_a_stopped_pretraining_goes_on(tiny_dataset, other_dataset, tiny_config, tmp_path):
    datasets = [tiny_dataset, other_dataset]
    whole = train(datasets, tiny_config, CONFIG, tmp_path / "whole")
    polls = iter([False, False, False, True])
    with pytest.raises(TrainingCanceled):
        train(datasets, tiny_config, CONFIG, tmp_path / "parts", should_stop=lambda: next(polls))
    parts = train(datasets, tiny_config, CONFIG, tmp_path / "parts")
    wanted, got = load_file(whole), load_file(parts)
    assert all(torch.equal(got[name], value) for name, value in wanted.items())


def test_one_clip_or_a_dataset_of_another_preset_is_refused(tiny_dataset, tmp_path):
    with pytest.raises(InvalidInputError, match="several videos; 1 given"):
        pretrain([tiny_dataset.folder], tmp_path)
    size = get_preset("nano").image_size_px
    with pytest.raises(InvalidInputError, match=f"pictures of 64 .* needs {size}"):
        pretrain([tiny_dataset.folder] * 2, tmp_path, preset="nano")


def test_datasets_of_different_face_models_are_refused(tmp_path):
    size = get_preset("nano").image_size_px
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        write_prepared_clip(folder, size_px=size, frame_count=5, train_count=4)
    described = json.loads((folders[1] / "dataset.json").read_text())
    described["model_digest"] = "of another file of the same name"
    (folders[1] / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(InvalidInputError, match="different face models"):
        pretrain(folders, tmp_path / "pretraining", preset="nano")


def test_a_video_that_is_not_there_is_noticed_before_another_is_tracked(tiny_dataset, tmp_path):
    with pytest.raises(NotFoundError, match=r"neither a video nor a dataset at .*gone\.mp4"):
        pretrain([tiny_dataset.folder, tmp_path / "gone.mp4"], tmp_path / "work")
    assert not list(tmp_path.iterdir())
