# SPDX-License-Identifier: Apache-2.0
"""The paper preset gives what the published networks give, on tensors filled by rule.

What they gave is in ``tests/data/published-values.npz``: values all over the pictures, masks and
maps of a recorded run, rows and columns along their borders among them.
"""

import numpy as np
import pytest
import torch

from styleavatar_core.errors import AssetError
from styleavatar_core.networks.weights import convert_published
from tests.fakes.published_values import (
    VALUES_PATH,
    WINDOWS,
    Arrays,
    other_outputs,
    portrait_outputs,
    samples,
)

HALF_PRECISION = 6e-4  # of whole pictures, up to 1.5, which are recorded in it


@pytest.fixture(scope="module")
def published() -> Arrays:
    with np.load(VALUES_PATH) as values:
        return dict(values)


def require_equal(outputs: Arrays, published: Arrays) -> None:
    for name, output in outputs.items():
        tolerance = HALF_PRECISION if name.endswith("f16") else 1e-4
        np.testing.assert_allclose(
            samples(name, output), published[name], atol=tolerance, rtol=0, err_msg=name
        )


@pytest.mark.parametrize("window", WINDOWS)
def test_portrait_generator_gives_the_published_picture_and_mask(
    published: Arrays, window: str
) -> None:
    outputs = portrait_outputs(published, window)
    assert all(len(published[name]) > 250 for name in outputs)
    require_equal(outputs, published)


def test_feature_generator_and_discriminator_give_the_published_maps_and_scores(
    published: Arrays,
) -> None:
    require_equal(other_outputs(published), published)


def test_unknown_parameter_is_refused_by_name() -> None:
    with pytest.raises(AssetError, match=r"g_ema\.tex_down\.0\.bias"):
        convert_published("g_ema", {"tex_down.0.bias": torch.zeros(1)})


def test_constant_buffers_are_left_out() -> None:
    buffers = {
        "to_rgbs_0.0.iwt.ll": torch.zeros(2, 2),
        "convs_0.0.conv.blur.kernel": torch.zeros(4),
    }
    assert convert_published("g_ema", buffers) == {}
