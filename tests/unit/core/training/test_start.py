# SPDX-License-Identifier: Apache-2.0
import shutil
from dataclasses import replace

import pytest
import torch

from styleavatar_core.avatar import bundle as avatar_bundle
from styleavatar_core.avatar.bundle import read_bundle, write_bundle
from styleavatar_core.errors import AssetError, ConflictError, InvalidInputError, NotFoundError
from styleavatar_core.training.checks import check_before_preparing
from styleavatar_core.training.clock import Clock
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.loop import load_average, train
from styleavatar_core.training.record.checkpoint import (
    CHECKPOINT_NAME,
    TRAINING_FOLDER,
    load_checkpoint,
    read_face_model,
    save_checkpoint,
)
from styleavatar_core.training.start import find_start, require_same_preset, start_from_avatar
from styleavatar_core.training.trainer import Trainer
from tests.fakes.bundle import fake_manifest


@pytest.fixture(scope="module")
def other(tiny_config):
    return Trainer(tiny_config, TrainConfig(seed=7))


@pytest.fixture(scope="module")
def checkpoint(other, tmp_path_factory):
    path = tmp_path_factory.mktemp("other") / "checkpoint.safetensors"
    save_checkpoint(path, Clock(step=9), other.modules, other.optimizers, "another video")
    return path


@pytest.fixture(scope="module")
def bundle(other, tiny_config, tmp_path_factory):
    weights = {k: v.numpy() for k, v in other.networks.generator.state_dict().items()}
    manifest = fake_manifest(0, preset="tiny", generator=tiny_config.to_dict())
    path = tmp_path_factory.mktemp("bundle") / "avatar"
    return write_bundle(path, manifest, generator=weights, features={}, preview_jpeg=b"none")


def test_it_is_found_where_a_person_says(checkpoint, bundle, tmp_path):
    assert find_start(checkpoint) == checkpoint
    # OUT of `train` whose work files are gone: only the avatar is there.
    assert find_start(bundle) == find_start(bundle.parent) == bundle
    work = tmp_path / TRAINING_FOLDER / CHECKPOINT_NAME
    work.parent.mkdir()
    work.touch()
    assert find_start(tmp_path) == work
    for name in ("gone", "gone.safetensors", "gone.zip"):
        with pytest.raises(NotFoundError, match=f"nothing to start from at .*{name}:"):
            find_start(tmp_path / name)


def test_a_checkpoint_gives_all_weights(other, checkpoint, tiny_config):
    trainer = Trainer(tiny_config, TrainConfig())
    start_from_avatar(trainer, checkpoint)
    for name, module in trainer.modules.items():
        wanted = other.modules[name].state_dict()
        assert all(torch.equal(value, wanted[key]) for key, value in module.state_dict().items())


def test_a_bundle_gives_the_generator_and_nothing_else(other, bundle, tiny_config):
    trainer = Trainer(tiny_config, TrainConfig())
    before = trainer.networks.face.state_dict()["input.constant"].clone()
    start_from_avatar(trainer, bundle)
    wanted = other.networks.generator.state_dict()
    for networks in (trainer.networks, trainer.average.networks):
        got = networks.generator.state_dict()
        assert all(torch.equal(value, wanted[key]) for key, value in got.items())
    assert torch.equal(trainer.networks.face.state_dict()["input.constant"], before)


def test_weights_of_a_bundle_are_read_once(bundle, tiny_config, monkeypatch):
    read = []

    def note(function):
        return lambda path, name, *entry: read.append(name) or function(path, name, *entry)

    for name in ("read_member", "read_beside"):
        monkeypatch.setattr(avatar_bundle, name, note(getattr(avatar_bundle, name)))
    require_same_preset(bundle, tiny_config)
    start_from_avatar(Trainer(tiny_config, TrainConfig()), bundle)
    assert read == 2 * ["avatar.json", "generator.safetensors"]


def test_a_bundle_that_was_tampered_with_is_refused_before_a_video_is_read(
    bundle, tiny_config, tmp_path
):
    path = shutil.copytree(bundle, tmp_path / "avatar") / "generator.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(AssetError, match=r"generator.*sha256 differs"):
        check_before_preparing(tmp_path, tiny_config, TrainConfig(), start=path.parent)
    with pytest.raises(AssetError, match=r"generator.*sha256 differs"):
        start_from_avatar(Trainer(tiny_config, TrainConfig()), path.parent)


@pytest.mark.parametrize("kind", ["checkpoint", "bundle"])
def test_another_preset_is_refused_before_a_video_is_read(kind, tiny_config, request, tmp_path):
    generator = replace(tiny_config.synthesis, encoder_channels=(8, 8, 4))
    small, config = replace(tiny_config, name="small", synthesis=generator), TrainConfig()
    source = request.getfixturevalue(kind)
    check_before_preparing(tmp_path, tiny_config, config, start=source)
    with pytest.raises(InvalidInputError, match="another preset than 'small'"):
        check_before_preparing(tmp_path, small, config, start=source)
    with pytest.raises(InvalidInputError, match="another preset than 'small'"):
        start_from_avatar(Trainer(small, config), source)


@pytest.mark.parametrize("kind", ["checkpoint", "bundle"])
def test_another_face_model_is_refused(kind, other, tiny_config, bundle, tiny_dataset, tmp_path):
    def source(model_id):
        path = tmp_path / f"{model_id}.safetensors"
        if kind == "checkpoint":
            save_checkpoint(path, Clock(), other.modules, other.optimizers, "", face_model=model_id)
            return path
        weights, manifest = read_bundle(bundle).generator(), read_bundle(bundle).manifest
        manifest = manifest.model_copy(update={"model_id": model_id})
        path = tmp_path / model_id
        return write_bundle(path, manifest, generator=weights, features={}, preview_jpeg=b"none")

    config = TrainConfig(step_count=1, adversarial_start=1.0)
    theirs = source("faceverse-v3")
    with pytest.raises(InvalidInputError, match="'faceverse-v3', not with 'builtin-3'"):
        train([tiny_dataset], tiny_config, config, tmp_path / "work", start=theirs)
    with pytest.raises(InvalidInputError, match="use --face-model faceverse-v3"):
        check_before_preparing(tmp_path, tiny_config, config, start=theirs)
    # Both are built in and differ in the mouth's inside only.
    path = train([tiny_dataset], tiny_config, config, tmp_path / "work", start=source("builtin-2"))
    assert read_face_model(path) == "builtin-3"


def test_a_training_starts_from_it_once(tiny_dataset, tiny_config, checkpoint, other, tmp_path):
    config = TrainConfig(step_count=1, learning_rate=0.0, adversarial_start=1.0)
    path = train([tiny_dataset], tiny_config, config, tmp_path, start=checkpoint)
    networks, clock = load_average(path, tiny_config)
    name = "mask_conv.weight"
    assert torch.equal(
        networks.generator.state_dict()[name], other.networks.generator.state_dict()[name]
    )
    assert (clock.step, clock.started_from) == (1, "checkpoint.safetensors")
    assert networks.background_start.abs().max() > 0  # its own room, not the other's
    train([tiny_dataset], tiny_config, config, tmp_path, start=tmp_path / "gone.safetensors")


def test_a_training_of_another_version_is_not_resumed(other, tiny_config, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    fewer = {**other.modules, "networks": other.networks.generator}
    save_checkpoint(path, Clock(step=9), fewer, other.optimizers, "this video")
    trainer = Trainer(tiny_config, TrainConfig())
    with pytest.raises(ConflictError, match="another version of this program"):
        load_checkpoint(path, trainer.modules, trainer.optimizers, "this video")


def test_moments_laid_out_otherwise_are_not_resumed(other, tiny_config, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    separate = torch.optim.Adam(other.judge.parameters())
    for weight in other.judge.parameters():
        weight.grad.zero_()
    separate.step()
    optimizers = {**other.optimizers, "judge": separate}
    save_checkpoint(path, Clock(step=9), other.modules, optimizers, "this video")
    trainer = Trainer(tiny_config, TrainConfig())
    with pytest.raises(ConflictError, match="another version of this program"):
        load_checkpoint(path, trainer.modules, trainer.optimizers, "this video")


def test_what_lies_otherwise_in_memory_is_not_resumed(other, tiny_config, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    networks = other.networks.to(memory_format=torch.channels_last)  # as on a GPU
    modules = {**other.modules, "networks": networks}
    save_checkpoint(path, Clock(step=9), modules, other.optimizers, "this video")
    trainer = Trainer(tiny_config, TrainConfig())
    with pytest.raises(ConflictError, match="another kind of device"):
        load_checkpoint(path, trainer.modules, trainer.optimizers, "this video")
