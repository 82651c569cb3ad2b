# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from styleavatar_core.ops.to_rgb import to_rgb, to_rgb_reference


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("has_image", [True, False])
def test_it_is_inverse_haar_plus_the_doubled_image(count: int, has_image: bool) -> None:
    def values(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    inputs = [values(count, 5, 6, 4), values(12, 5, 1, 1), values(count, 5), values(12)]
    pixels = values(count, 12, 3, 2) if has_image else None
    results = [operation(*inputs, pixels) for operation in (to_rgb, to_rgb_reference)]
    assert results[0].shape == (count, 12, 6, 4)
    torch.testing.assert_close(*results)
    learned = inputs if pixels is None else [*inputs, pixels]
    probe = torch.randn_like(results[0])
    torch.testing.assert_close(
        *(torch.autograd.grad((result * probe).sum(), learned) for result in results)
    )
