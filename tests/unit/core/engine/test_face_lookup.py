# SPDX-License-Identifier: Apache-2.0
"""The face sampled on the host is the face as the networks' definition samples it."""

import numpy as np
import pytest
import torch

from styleavatar_core.engine.frozen.freeze import can_take_samples
from styleavatar_core.engine.frozen.loading import make_lookup
from styleavatar_core.networks import FeatureMaps, get_preset
from styleavatar_core.networks.composition import FaceSampler
from tests.unit.core.engine.test_freeze import noisy_nano


def test_it_samples_as_the_networks_do_and_beyond_the_border_too() -> None:
    face = FeatureMaps(torch.randn(1, 4, 16, 16), torch.randn(1, 12, 16, 16))
    uv, mask = torch.rand(3, 2, 12, 8) * 1.4 - 0.2, torch.randint(0, 2, (3, 1, 12, 8))
    expected = FaceSampler("bilinear", 2)(face, uv, mask.float())
    lookup = make_lookup(face)
    for _ in range(2):  # the second time into the same memory
        samples = lookup.sample(uv.permute(0, 2, 3, 1).numpy(), mask[:, 0].to(torch.uint8).numpy())
        for part, wanted in zip(samples, expected, strict=True):
            given = torch.from_numpy(part).permute(0, 3, 1, 2)
            torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-5)


def test_coordinates_that_are_none_stay_in_the_map() -> None:
    face = FeatureMaps(torch.ones(1, 4, 16, 16), torch.zeros(1, 12, 16, 16))
    lookup = make_lookup(face)
    uv = np.full((1, 2, 2, 2), np.nan, np.float32)
    uv[0, 0, 0], uv[0, 0, 1], uv[0, 1, 0] = 1e30, -1e30, np.inf
    feature, _ = lookup.sample(uv, np.ones((1, 2, 2), np.uint8))
    assert np.array_equal(feature.ravel(), np.ones(16))


@pytest.mark.parametrize("shapes", [((1, 4, 4, 2), (1, 4, 6)), ((1, 3, 3, 2), (1, 3, 3))])
def test_what_does_not_belong_together_is_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    face = FeatureMaps(torch.ones(1, 4, 16, 16), torch.zeros(1, 12, 16, 16))
    lookup = make_lookup(face)
    with pytest.raises(ValueError, match="do not belong together"):
        lookup.sample(np.zeros(shapes[0], np.float32), np.zeros(shapes[1], np.uint8))


def test_networks_that_add_the_face_sample_it_themselves() -> None:
    assert can_take_samples(get_preset("lite"))
    for config in (noisy_nano(), get_preset("paper")):
        assert not can_take_samples(config)
