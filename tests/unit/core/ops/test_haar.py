# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
import torch.nn.functional as F

from styleavatar_core.ops.haar import (
    bands_of,
    haar_transform,
    haar_transform_reference,
    inverse_haar_transform,
    pixels_of,
)


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (2, 6, 8, 12), (3, 1, 2, 2)])
def test_fast_transform_equals_reference_in_values_and_gradients(shape: tuple[int, ...]) -> None:
    image = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(shape[0], shape[1] * 4, shape[2] // 2, shape[3] // 2).double()
    fast, reference = haar_transform(image), haar_transform_reference(image)
    torch.testing.assert_close(fast, reference)
    (fast_gradient,) = torch.autograd.grad((fast * weight).sum(), image)
    (reference_gradient,) = torch.autograd.grad((reference * weight).sum(), image)
    torch.testing.assert_close(fast_gradient, reference_gradient)


def test_inverse_restores_the_image() -> None:
    image = torch.randn(2, 3, 16, 8, dtype=torch.float64)
    torch.testing.assert_close(inverse_haar_transform(haar_transform(image)), image)


def test_bands_and_pixels_of_a_block_are_the_same_image() -> None:
    image = torch.randn(2, 3, 16, 8, dtype=torch.float64)
    pixels, pack = F.pixel_unshuffle(image, 2), haar_transform(image)
    torch.testing.assert_close(bands_of(pixels), pack)
    torch.testing.assert_close(pixels_of(pack), pixels)


def test_transform_keeps_energy() -> None:
    image = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(haar_transform(image).square().sum(), image.square().sum())


def test_constant_image_is_in_the_first_band_only() -> None:
    pack = haar_transform(torch.ones(1, 3, 4, 4))
    assert torch.equal(pack[:, :3], torch.full((1, 3, 2, 2), 2.0))
    assert torch.equal(pack[:, 3:], torch.zeros(1, 9, 2, 2))


def test_training_works_after_inference_mode_asked_first() -> None:
    with torch.inference_mode():
        haar_transform(torch.ones(1, 7, 4, 4))
    image = torch.ones(1, 7, 4, 4, requires_grad=True)
    haar_transform(image).square().sum().backward()
    assert image.grad is not None
