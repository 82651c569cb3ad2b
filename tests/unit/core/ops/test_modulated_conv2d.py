# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from styleavatar_core.ops.modulated_conv2d import (
    conv2d_down,
    conv2d_up,
    modulated_conv2d,
    modulated_conv2d_reference,
    style_demodulation,
)

BOX = (1.0, 1.0)
FIR = (1.0, 3.0, 3.0, 1.0)


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("up_taps", [None, BOX, FIR])
@pytest.mark.parametrize("count", [1, 3])
def test_fast_modulation_equals_one_kernel_per_sample(
    count: int, demodulate: bool, up_taps: tuple[float, ...] | None
) -> None:
    x = torch.randn(count, 4, 6, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    styles = torch.randn(count, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True)
    results = [
        operation(x, weight, styles, bias, gain=1.4, demodulate=demodulate, up_taps=up_taps)
        for operation in (modulated_conv2d, modulated_conv2d_reference)
    ]
    torch.testing.assert_close(*results)
    probe = torch.randn_like(results[0])
    gradients = [
        torch.autograd.grad((result * probe).sum(), (x, weight, styles, bias)) for result in results
    ]
    torch.testing.assert_close(*gradients)


def test_one_map_serves_a_batch_of_styles() -> None:
    x, weight, styles = torch.randn(1, 4, 5, 5), torch.randn(6, 4, 3, 3), torch.randn(3, 4)
    maps = (x, x.expand(3, 4, 5, 5))
    torch.testing.assert_close(
        *(modulated_conv2d(each, weight, styles, torch.zeros(6)) for each in maps)
    )


def test_demodulated_kernels_have_unit_norm() -> None:
    weight, styles = torch.randn(6, 4, 3, 3), torch.randn(2, 4)
    kernels = weight[None] * styles[:, None, :, None, None]
    kernels = kernels * style_demodulation(weight, styles)[:, :, None, None, None]
    torch.testing.assert_close(kernels.flatten(2).norm(dim=2), torch.ones(2, 6))


@pytest.mark.parametrize("taps", [BOX, FIR])
def test_folding_the_filter_into_the_weight_changes_nothing(taps: tuple[float, ...]) -> None:
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    weight = torch.randn(5, 4, 3, 3, dtype=torch.float64)
    bias = torch.randn(5, dtype=torch.float64)
    down = [conv2d_down(x, weight, bias, taps, fold=fold) for fold in (True, False)]
    up = [conv2d_up(x, weight, bias, taps, fold=fold) for fold in (True, False)]
    torch.testing.assert_close(*down)
    torch.testing.assert_close(*up)
    assert down[0].shape == (2, 5, 4, 4)
    assert up[0].shape == (2, 5, 16, 16)
