# SPDX-License-Identifier: Apache-2.0
"""What steps take is the same whenever it is prepared; noise is fixed where the paper fixes it."""

from contextlib import closing
from dataclasses import fields

import numpy as np
import torch

from styleavatar_core.engine.frozen.freeze import freeze
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.networks import FeatureMaps, fixed_noise, position_code
from styleavatar_core.training.avatar_networks import AvatarNetworks
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.record.reporter import NetworkRenderer
from styleavatar_core.training.samples.batches import FIXED_STYLE_TIME, make_batch
from styleavatar_core.training.samples.clips import Clip
from styleavatar_core.training.samples.feeder import Feeder
from tests.fakes.networks import shake

CPU = torch.device("cpu")


def tensors(inputs):
    parts = (inputs.batch, inputs.noise)
    values = [getattr(part, field.name) for part in parts for field in fields(part)]
    return [value for value in values if isinstance(value, torch.Tensor)]


def test_it_makes_no_difference_when_a_step_is_prepared(tiny_dataset, tiny_published_config):
    arguments = ([Clip(tiny_dataset)], tiny_published_config, TrainConfig(batch_size=3), CPU)
    now = Feeder(*arguments)
    with closing(Feeder(*arguments, is_ahead=True)) as ahead:
        for step in (0, 1, 2, 9, 1, 2):  # a training may be resumed, and go back
            wanted, got = tensors(now.at_step(step)), tensors(ahead.at_step(step))
            assert len(wanted) == len(got) > 10
            assert all(torch.equal(a, b) for a, b in zip(wanted, got, strict=True)), step


def test_noise_moves_with_the_person_and_stays_behind(tiny_dataset, tiny_published_config):
    feeder = Feeder([Clip(tiny_dataset)], tiny_published_config, TrainConfig(), CPU)
    first, second = (feeder.at_step(step).noise for step in (0, 1))
    assert not torch.equal(first.face, second.face)
    assert not torch.equal(first.foreground, second.foreground)
    still = fixed_noise(tiny_published_config).background  # that of inference
    for noise in (first, second):
        assert torch.equal(noise.background, still.expand(2, -1, -1, -1))


def test_networks_are_looked_at_with_the_noise_of_engines(tiny_dataset, tiny_published_config):
    config = tiny_published_config
    torch.manual_seed(0)
    networks = AvatarNetworks(config).eval().requires_grad_(False)
    shake(networks.generator)  # the strength of noise is zero at the start
    image, _ = NetworkRenderer(tiny_dataset, networks)(3)
    face, background = networks.static_maps()
    style = position_code(
        torch.tensor([FIXED_STYLE_TIME]), config.style.style_dim, config.position_octaves
    )
    maps = (FeatureMaps(face.feature, face.rgb_pack), background)
    engine = TorchEngine(freeze(networks.generator, style, *maps, noise=fixed_noise(config)))
    batch = make_batch(tiny_dataset, config, [3])
    rendered = engine._generator(
        ((batch.rendering + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1),
        batch.uv.permute(0, 2, 3, 1),
        batch.face_mask[:, 0].to(torch.uint8),
    )
    assert np.abs(image.astype(int) - rendered[0][0].numpy()).max() <= 1
