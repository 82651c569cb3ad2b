# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from styleavatar_core.networks import PortraitOutput
from styleavatar_core.training.config import LossWeights
from styleavatar_core.training.losses import (
    LossTable,
    discriminator_loss,
    generator_adversarial_loss,
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


def test_errors_are_averaged_over_the_valid_pixels_and_channels(tiny_dataset, tiny_config):
    batch = make_batch(tiny_dataset, tiny_config, [3], None)
    batch.valid[:, :, :, :10] = 0
    brighter = PortraitOutput(batch.image + 0.5, batch.mask - 0.25)
    values = reconstruction_losses(brighter, batch, LossWeights(l1=2.0, mask=4.0)).values()
    assert values["l1"] == pytest.approx(1.0, rel=1e-4)
    assert values["mask"] == pytest.approx(1.0, rel=1e-4)


def test_learned_features_take_the_place_of_edges_and_see_no_invalid_pixels(
    tiny_dataset, tiny_config
):
    batch = make_batch(tiny_dataset, tiny_config, [3], None)
    batch.valid[:, :, :, :10] = 0
    output = PortraitOutput(batch.image + 0.5, batch.mask.clone())
    output.image[:, :, :, :10] = 5.0
    weights = LossWeights(l1=0.0, perceptual=3.0)
    table = reconstruction_losses(output, batch, weights, lambda a, b: (a - b).abs().max())
    assert table.values() == {"l1": 0.0, "perceptual": pytest.approx(1.5), "mask": 0.0}


def test_structure_ignores_brightness_and_sees_edges():
    truth = torch.zeros(1, 3, 32, 32)
    assert float(structure_loss(truth + 0.5, truth)) == pytest.approx(0.0, abs=1e-6)
    edge = truth.clone()
    edge[..., 16:] = 0.5
    assert float(structure_loss(edge, truth)) > 0.01


def test_an_edge_beside_what_is_not_valid_counts_no_more_than_once():
    truth, edge, valid = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4), torch.ones(1, 1, 4, 4)
    edge[..., 2:] = 0.5
    # One of three differences across at the first scale, the only one at the second.
    assert float(structure_loss(edge, truth, valid)) == pytest.approx(0.5 / 3 + 0.5)
    valid[..., 2:] = 0
    assert float(structure_loss(edge, truth, valid)) == 0


def test_the_two_sides_want_opposite_scores():
    low, high = torch.full((2, 1), -3.0), torch.full((2, 1), 3.0)
    assert float(generator_adversarial_loss(high)) < 0.1 < float(generator_adversarial_loss(low))
    assert float(discriminator_loss(real=high, fake=low)) < 0.1
    assert float(discriminator_loss(real=low, fake=low)) > 3
    assert float(discriminator_loss(real=high, fake=high)) > 3


def test_gradient_penalty_of_a_known_function_and_what_is_learned_from_it():
    image, slope = torch.ones(2, 3, 4, 4, requires_grad=True), torch.tensor(3.0, requires_grad=True)
    penalty = gradient_penalty((slope * image).sum(dim=(1, 2, 3)), image)
    assert penalty.item() == pytest.approx(9 * 48)
    penalty.backward()
    assert slope.grad.item() == pytest.approx(2 * 3 * 48)
