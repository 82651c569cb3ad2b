# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from styleavatar_core.ops.upfirdn2d import (
    IMAGE_TAPS,
    downsample_image,
    upfirdn2d,
    upsample_image,
)


def test_impulse_gives_the_kernel() -> None:
    image = torch.zeros(1, 1, 7, 7)
    image[0, 0, 3, 3] = 1
    row = torch.tensor(IMAGE_TAPS)
    expected = torch.outer(row, row) / 64
    result = upfirdn2d(image, IMAGE_TAPS, padding=(2, 1))
    torch.testing.assert_close(result[0, 0, 2:6, 2:6], expected)
    assert result.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("size", [(4, 4), (5, 8)])
def test_fast_upsampling_equals_reference(size: tuple[int, int]) -> None:
    image = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    fast = upsample_image(image)
    reference = upfirdn2d(image, IMAGE_TAPS, up=2, padding=(2, 1))
    torch.testing.assert_close(fast, reference)
    weight = torch.randn_like(fast)
    (fast_gradient,) = torch.autograd.grad((fast * weight).sum(), image)
    (reference_gradient,) = torch.autograd.grad((reference * weight).sum(), image)
    torch.testing.assert_close(fast_gradient, reference_gradient)


def test_up_and_down_keep_a_constant_away_from_the_border() -> None:
    image = torch.ones(1, 2, 8, 8)
    torch.testing.assert_close(upsample_image(image)[..., 2:-2, 2:-2], torch.ones(1, 2, 12, 12))
    torch.testing.assert_close(downsample_image(image)[..., 1:-1, 1:-1], torch.ones(1, 2, 2, 2))


def test_border_takes_zero_from_outside() -> None:
    assert upsample_image(torch.ones(1, 1, 4, 4))[0, 0, 0, 0] == pytest.approx(0.75**2)
