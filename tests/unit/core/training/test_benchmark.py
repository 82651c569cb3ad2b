# SPDX-License-Identifier: Apache-2.0
"""The plain version that ``python -m benchmarks.training`` compares with takes the same steps."""

import pytest

from benchmarks.training import _PHASE
from benchmarks.training_parts.plain import PlainTrainer
from styleavatar_core.networks import layers
from styleavatar_core.ops.bias_act import activate
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.samples.batches import BatchSampler
from styleavatar_core.training.samples.clips import Clip
from styleavatar_core.training.trainer import Trainer


def test_plain_steps_give_the_same_losses(tiny_dataset, tiny_config):
    config = TrainConfig()
    sampler = BatchSampler([Clip(tiny_dataset)], tiny_config, config)
    fast, plain = Trainer(tiny_config, config), PlainTrainer(tiny_config, config)
    for number in range(3):
        batch = sampler.at_step(number)
        wanted = fast.step(batch, None, _PHASE, number).losses
        assert plain.step(batch, None, _PHASE, number).losses == pytest.approx(wanted, rel=1e-3)
    assert layers.activate is activate  # nothing stays replaced
