# SPDX-License-Identifier: Apache-2.0
"""A tiny network and a tiny prepared clip."""

from dataclasses import replace

import pytest
import torch

from styleavatar_core.networks.presets import _fast
from tests.fakes.networks import published_options
from tests.fakes.prepared_clip import write_prepared_clip


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_config():
    config = _fast("tiny", 64, base=4, face_channels=2, levels=3, widths=(8, 8, 8, 8))
    judge = replace(config.discriminator, channels=(8, 8, 8, 8), hidden_channels=8)
    return replace(config, discriminator=judge)


@pytest.fixture(scope="session")
def tiny_published_config(tiny_config):
    """What the published topology has besides: noise, batch normalisation, windows by linspace."""
    config = published_options(tiny_config)
    parts = {name: replace(getattr(config, name), norm="batch") for name in ("face", "background")}
    return replace(config, **parts)


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory):
    return write_prepared_clip(
        tmp_path_factory.mktemp("dataset"), train_count=16, invalid_columns=8
    )
