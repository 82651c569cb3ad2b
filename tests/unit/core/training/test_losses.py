# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from styleavatar_core.networks import PortraitOutput
from styleavatar_core.training.config import LossWeights
from styleavatar_core.training.losses import (
    LossTable,
    gradient_penalty,
    reconstruction_losses,
    structure_loss,
)
from styleavatar_core.training.samples.batches import make_batch


def test_the_sum_is_what_is_logged():
    table = LossTable()
    table.add("a", 2.0, torch.tensor(3.0))
    table.add("b", 0.5, torch.tensor(4.0))
    assert table.values() == {"a": 6.0, "b": 2.0}
    assert float(table.total()) == sum(table.values().values())


def test_a_perfect_picture_costs_nothing_and_invalid_pixels_do_not_count(tiny_dataset, tiny_config):
    batch = make_batch(tiny_dataset, tiny_config, [3], None)
    perfect = PortraitOutput(batch.image.clone(), batch.mask.clone())
    assert float(reconstruction_losses(perfect, batch, LossWeights()).total()) == 0.0
    batch.valid[:, :, :, :10] = 0
    perfect.image[:, :, :, :10] = 5.0
    assert float(reconstruction_losses(perfect, batch, LossWeights()).total()) == 0.0
    perfect.image[:, :, :, 12] = 5.0
    values = reconstruction_losses(perfect, batch, LossWeights()).values()
    assert values["l1"] > 0
    assert values["structure"] > 0
    assert values["mask"] == 0


def test_structure_ignores_brightness_and_sees_edges():
    truth = torch.zeros(1, 3, 32, 32)
    assert float(structure_loss(truth + 0.5, truth)) == pytest.approx(0.0, abs=1e-6)
    edge = truth.clone()
    edge[..., 16:] = 0.5
    assert float(structure_loss(edge, truth)) > 0.01


def test_gradient_penalty_of_a_known_function():
    image = torch.ones(2, 3, 4, 4, requires_grad=True)
    penalty = gradient_penalty((3 * image).sum(dim=(1, 2, 3)), image)
    assert float(penalty) == pytest.approx(9 * 48)
