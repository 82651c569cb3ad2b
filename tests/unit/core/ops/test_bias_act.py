# SPDX-License-Identifier: Apache-2.0
import torch

from styleavatar_core.ops.bias_act import activate, bias_act_reference, scale_bias


def test_gain_before_equals_gain_after_the_activation() -> None:
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64)
    gain = 2.0**0.5
    scale = torch.full((2, 3), gain, dtype=torch.float64)
    fast = activate(scale_bias(x, scale, bias * gain))
    reference = bias_act_reference(x, bias, gain)
    torch.testing.assert_close(fast, reference)
    probe = torch.randn_like(reference)
    (fast_gradient,) = torch.autograd.grad((fast * probe).sum(), x)
    (reference_gradient,) = torch.autograd.grad((reference * probe).sum(), x)
    torch.testing.assert_close(fast_gradient, reference_gradient)


def test_known_values() -> None:
    x = torch.tensor([[[[2.0]], [[-4.0]]]])
    result = activate(scale_bias(x, torch.tensor([[1.0, 0.5]]), torch.tensor([1.0, 1.0])))
    assert result.flatten().tolist() == [3.0, torch.tensor(-0.2).item()]
